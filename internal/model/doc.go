// Package model runs the forward pass of decoder-only language models in the numeric
// class f32: every product is a chain of fused multiply-adds of float32 in order, every
// sum has one order, and exponentials are our own, so that logits are the same words on
// any machine, for any number of threads, fed at once or token by token, in a batch or alone.
//
//	m, err := model.Open(checkpoint, model.Options{Threads: 2})     // headers and config.json, no weight
//	batch, err := m.Embed(ctx, tokens...)                           // activations of some sequences
//	for i := range m.Blocks() {
//		b, err := m.Block(ctx, i)                               // loads one decoder block
//		err = b.Forward(ctx, batch)                             // and drops it
//	}
//	head, err := m.Head(ctx)
//
// # Blocks
//
// A block is the unit. It takes its widths from its own tensors, whatever config.json
// says of the model: it may have fewer heads or a narrower MLP than its neighbours, never more
// than config.json speaks of. Weights stay in memory as they are stored, are
// widened a panel of rows at a time, and experts are read when a token is sent to them. So a model of any size
// runs in the memory of one block and the activations.
//
// # Families
//
// What tells one architecture from another is data: names of tensors, which linears have
// biases, which heads are normed, where attention is confined to a window. Each is a file of its own
// with a line in families. What is not known is refused by its name: a model_type, an activation,
// a rotary scaling, a tensor in a block that nothing would read.
package model
