// Package compress says what it means to compress a weight matrix, apart from where
// the weights come from and where the result goes: no file, no network, no clock, no
// environment. Methods live in the packages below it (compress/quantize, ...), one
// method a file; compress/recipe names them and chooses which linear gets which.
//
// # Encode
//
// A [Method] turns a linear (rows = outputs, cols = inputs) into a [Scheme] and named
// components, panel by panel:
//
//	layout, err := m.Layout(l)                  // headers only: sizes, scheme, what it needs; refuses what cannot work
//	enc, err := m.Prepare(ctx, group, options)  // once per group of linears that share something
//	for p := range panels { enc[i].Rows(&e, p) } // any number of panels, any goroutine, rows in any order
//	layout.Scheme.Decode(dst, cols, &e)         // what the codes mean, the one definition of it
//
// Rules that every method keeps, held by package methodtest:
//
//   - The bytes depend on the weights and the parameters only: not on how the rows are cut
//     into panels, nor on the kernel, the machine or the order of calls.
//   - A method whose Layout says AllRows reads rows in Prepare that it is not encoding, so
//     one task must be able to read the linear whole. Every other method may have its rows
//     split over tasks, each with a Prepare of its own.
//   - Rows that share an entry of a component (tiles) make Layout.RowUnit a multiple of Component.RowsPer, and panels start at
//     multiples of it. A ragged component grows by what each row needs; its size in all is known before.
//   - Output buffers belong to the caller's [Encoded]; an encoder keeps no state between
//     panels, so several goroutines may share it.
//   - NaN and infinite weights are refused with the linear, row and column.
//
// A scheme is a type of its own, in a file of its own, with a line in parsers; results carry it as JSON. A method that prunes or
// factors is a [Chainer]: what it makes can be encoded by another method, which a recipe says with "then".
//
// # Other scopes
//
// Encode is the only scope that exists today. Rewriting a block (smoothing, rotation,
// slicing), deciding something global (ranks, bits) and tuning a block against
// gradients read and write other things than one linear; each gets an interface of its own
// beside Method when its first method arrives, rather than options here.
//
// # Methods on paper
//
// The interface was tried against these before it was frozen:
//
//   - RTN: Layout alone decides everything for channel and group scales; per tensor sets
//     AllRows and Prepare finds the range in one pass. Components codes, scales, zeros.
//   - FP8 per tensor: Scheme kind "float", AllRows; codes F8_E4M3 [rows, cols] and one whole
//     scale. FP8 per channel or block differs only in the shape of scales; a block of rows that
//     shares a scale makes Layout.RowUnit its height, and panels start on a multiple of it.
//   - NVFP4: Layout.Share = ShareFused, because engines want one global scale for q, k, v and
//     for gate, up. Prepare gets the whole group and reads the largest weight of all; each
//     encoder then gives codes U8 [rows, cols/2], scales F8_E4M3 [rows, cols/16] and a whole
//     component F32 [1]. AllRows, since Prepare reads every row of every member.
//   - MXFP4: as RTN with another element; nothing shared.
//   - NF4, SqueezeLLM: Scheme kind "codebook" with the table as a component, whole for NF4, a
//     row each for SqueezeLLM.
//   - HQQ: RTN's components with zeros in a float dtype.
//   - GPTQ: Needs names the factor of the Hessian (a result of its own, made once per site and
//     damping, which q, k, v, later recipes and all row splits share), handed over in
//     Options. Rows(panel) runs all columns of its rows, so rows split and Scratch is
//     the factor. Act-order with static groups changes no component; with groups it adds a whole
//     component g_idx.
//   - AWQ on one linear: Needs the channel means and the Hessian, ShareInput because one scale serves
//     all readers of a site; the scale search is a small Decide whose document is a parameter here.
//   - OWQ: a whole component of column numbers and an fp16 component [rows, kept].
//   - SpQR: outliers have no size before encoding; their component has -1 as its second
//     dimension, and Encoded.Data says how long it became.
//   - SVD-LLM, ASVD: Needs the Cholesky factor; AllRows; the left factor is a component by rows, the
//     right one [rank, cols] a whole component. Factors that are themselves encoded are
//     components with a prefix (left.codes, right.codes) and schemes nested in the Scheme.
//   - SparseGPT joint with int4, Wanda: a mask component beside RTN's; unstructured SparseGPT
//     takes its threshold over all rows and so sets AllRows, N:M does not.
package compress
