package model

// Cache holds the keys and values of one sequence, block by block. What is fed with it continues it. It belongs to one
// goroutine at a time.
type Cache struct{ blocks []past }

// past is what a block knows of the tokens so far.
type past struct {
	keys, values []float32 // tokens × (key-value heads × head dim), row-major; keys are turned
}

// NewCache returns the cache of a sequence without tokens.
func (m *Model) NewCache() *Cache { return &Cache{blocks: make([]past, m.Blocks())} }

// Clone returns a copy that goes its own way.
func (c *Cache) Clone() *Cache {
	d := &Cache{blocks: make([]past, len(c.blocks))}
	for i, p := range c.blocks {
		// Without room behind them, so that whatever is appended is copied first.
		d.blocks[i] = past{keys: p.keys[:len(p.keys):len(p.keys)], values: p.values[:len(p.values):len(p.values)]}
	}
	return d
}
