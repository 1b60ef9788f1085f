package shard

// scratchSize bounds the buffer through which transposed weights are read.
const scratchSize = 1 << 20
