// Package shard reads and writes model checkpoints without ever holding one in memory.
//
// Open reads the headers of a Hugging Face checkpoint (never its weights) and describes it by a Manifest: files with their
// identity, tensors with their byte ranges, linears as views of tensors, the place of every tensor in the decoder, and the other
// files that belong to the model. A Manifest is immutable and has canonical bytes, so it can be hashed, stored and sent.
//
// OpenBucket does the same for a checkpoint in an object store, of which every read is bound to the version described.
//
// A Source reads ranges of those files and refuses to hand out bytes of a file that is no longer the one the Manifest describes.
// ReadRows gives the rows of a linear, however the checkpoint stores them: plain, transposed, one of many experts in a tensor,
// or FP8 with block scales.
//
// Layout and Writer stream safetensors files whose header is known before the first weight; CompressedTensors says which tensors
// a quantized linear becomes, and QuantizationConfig what an engine must be told about them.
//
// # Layout of a safetensors file
//
//	bytes 0..7     N, the length of the header, unsigned 64-bit little-endian
//	bytes 8..8+N   JSON object: tensor name -> {"dtype", "shape", "data_offsets": [begin, end]}, optional "__metadata__"
//	bytes 8+N..    data; offsets count from here; tensors touch one another and fill the file
//
// # What a checkpoint directory may hold
//
// Weights are model.safetensors, or the files of model.safetensors.index.json, or the only *.safetensors file there is. config.json
// is kept with its bytes. Every other regular file is an Extra, carried over unchanged, except those listed in Manifest.Skipped with
// the reason: hidden files, weights in other formats and their indexes, safetensors files that the index does not use, descriptions of
// the source's own quantization, results of an earlier run, files above MaxExtra, and everything that is not a regular file
// (subdirectories are not entered; symbolic links to files are followed, as hub caches need).
package shard
