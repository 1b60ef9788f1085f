package coordinator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// maxUnit bounds the source bytes behind one weight file of the result, and so
// what is lost when a worker dies. A tensor is not cut: a larger one is a file of
// its own. It is part of the plan: changing it changes every task's ID.
const maxUnit = 1 << 30

// Plan is everything a run will do, known from headers and a recipe alone. It does
// not depend on who will do it.
type Plan struct {
	Manifest *shard.Manifest
	Recipe   *recipe.Recipe
	Format   string
	Units    []Unit
	// Config is the result's config.json, nil if the source has none.
	Config []byte
	// Index is the result's model.safetensors.index.json, nil for a single file.
	Index []byte
	// Notes are things a person should know before the run.
	Notes []string
}

// Unit is one weight file of the result and the task that makes it.
type Unit struct {
	ID    task.ID
	File  string
	Block int // decoder block, -1 for what lies outside the blocks
	Spec  []byte
	// Layout holds the totals only; Work tells the rest.
	Layout *operation.Layout
	Files  []task.File // where the spec's inputs are found, in their order
	report unitReport
}

// Work works out from the spec, as whoever does the task, what is read and written
// in detail. A plan does not hold on to it: all of it together is several times the
// specs, and a run needs little of it at a time.
func (u *Unit) Work() (*operation.EncodeParams, *operation.Layout, error) {
	spec, err := task.ParseSpec(u.ID, u.Spec)
	if err != nil {
		return nil, nil, err
	}
	params, err := operation.ParseEncodeParams(spec.Params)
	if err != nil {
		return nil, nil, err
	}
	layout, err := params.Layout()
	return params, layout, err
}

// PlanOptions are what a plan needs besides the manifest and the recipe.
type PlanOptions struct {
	// Config is the source's config.json, nil if it has none.
	Config json.RawMessage
	// Salt separates results of development builds.
	Salt string
}

// NewPlan decides what to do with every tensor. It is pure: the same arguments
// give the same plan, and it refuses what can never work before anything runs.
func NewPlan(m *shard.Manifest, r *recipe.Recipe, o PlanOptions) (*Plan, error) {
	if err := m.CheckSource(); err != nil {
		return nil, err
	}
	p := &Plan{Manifest: m, Recipe: r, Format: r.Format()}
	pl := &planner{plan: p, options: o, byTensor: map[string][]int{}}
	if err := pl.choose(); err != nil {
		return nil, err
	}
	if err := pl.cut(); err != nil {
		return nil, err
	}
	if err := pl.finish(); err != nil {
		return nil, err
	}
	return p, nil
}

type planner struct {
	plan    *Plan
	options PlanOptions

	byTensor map[string][]int          // linears of a tensor, in order
	chosen   map[int]*recipe.Selection // what is done to a linear, by index
	fused    map[int]bool              // linears whose method wants to be prepared with those that engines fuse
	seeded   map[int]bool              // linears whose method draws numbers
	peers    map[int][]int             // linears that are prepared with a linear, itself among them
	packed   []shard.QuantizedLinear   // for the result's config.json
}

// choose asks the recipe about every linear.
func (pl *planner) choose() error {
	m, r := pl.plan.Manifest, pl.plan.Recipe
	all := make([]compress.Linear, len(m.Linears))
	pl.chosen, pl.fused, pl.seeded = map[int]*recipe.Selection{}, map[int]bool{}, map[int]bool{}
	for i, l := range m.Linears {
		al, err := operation.AsLinear(m, l)
		if err != nil {
			return err
		}
		all[i] = al
		pl.byTensor[l.Tensor] = append(pl.byTensor[l.Tensor], i)
	}
	if err := unmatched(r.Unmatched(all)); err != nil {
		return err
	}
	for i := range all {
		sel, ok, err := r.Select(all[i])
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		layout, err := sel.Method.Layout(all[i])
		if err != nil {
			return err
		}
		if layout.Share == compress.ShareFused {
			pl.fused[i] = true
		}
		if layout.Seeded {
			pl.seeded[i] = true
		}
		if m.Linears[i].Transposed && sel.Format != operation.FormatDense && m.Linears[i].Expert < 0 {
			return fmt.Errorf("linear %s: format %s: %w: engines have no packed form of weights that are stored transposed; choose --set output.format=dense",
				all[i].Name, sel.Format, compress.ErrInvalid)
		}
		pl.chosen[i] = &sel
	}
	if len(pl.chosen) == 0 {
		return fmt.Errorf("plan: %w: the recipe selects none of the checkpoint's %d linears", compress.ErrInvalid, len(all))
	}
	return pl.share()
}

// share finds the linears that are prepared together: those that engines fuse, where the method of all of them says so. One that
// is treated otherwise shares nothing, or with others that are treated like it, whichever steps of the recipe say so.
func (pl *planner) share() error {
	if len(pl.fused) == 0 {
		return nil
	}
	pl.peers = map[int][]int{}
	for _, group := range shard.FusedGroups(pl.plan.Manifest) {
		alike := map[string][]int{}
		for _, i := range group {
			if !pl.fused[i] {
				continue
			}
			sel := pl.chosen[i]
			key := fmt.Sprintf("%s %s %s", sel.First.Name(), sel.Params, sel.Format)
			if sel.Then != nil {
				key += fmt.Sprintf(" %s %s", sel.Then.Name(), sel.ThenParams)
			}
			alike[key] = append(alike[key], i)
		}
		for _, with := range alike {
			if len(with) < 2 {
				continue
			}
			for _, i := range with {
				pl.peers[i] = with
			}
		}
	}
	return nil
}

// unmatched makes one sentence of the recipe's patterns that match nothing.
func unmatched(misses []recipe.Miss) error {
	if len(misses) == 0 {
		return nil
	}
	err := misses[0].Err
	for _, miss := range misses[1:] {
		err = fmt.Errorf("%w; %w", err, miss.Err)
	}
	return fmt.Errorf("%w (shardpress inspect --tensors lists what the model has)", err)
}

// piece is one item with what it reads.
type piece struct {
	item    operation.Item
	tensors []string
	linears []int // indices into the manifest, which the item's own count from 0
	source  int64 // bytes
	block   int
}

// cut turns every tensor into pieces and gathers them into units by block.
func (pl *planner) cut() error {
	m := pl.plan.Manifest
	blocks := map[string]int{}
	for _, place := range m.Places {
		blocks[place.Tensor] = place.Block
	}
	byBlock := map[int][]piece{}
	for _, t := range m.Tensors {
		block, placed := blocks[t.Name]
		if !placed {
			continue // scales of FP8 weights are read with their weights
		}
		pieces, err := pl.pieces(t)
		if err != nil {
			return err
		}
		for _, pc := range pieces {
			pc.block = block
			byBlock[block] = append(byBlock[block], pc)
		}
	}
	order := make([]int, 0, len(byBlock))
	for b := range byBlock {
		order = append(order, b)
	}
	slices.Sort(order) // what lies outside the blocks, -1, comes first
	for _, b := range order {
		var unit []piece
		var size int64
		for _, pc := range byBlock[b] {
			if len(unit) > 0 && size+pc.source > maxUnit {
				if err := pl.add(unit); err != nil {
					return err
				}
				unit, size = nil, 0
			}
			unit = append(unit, pc)
			size += pc.source
		}
		if err := pl.add(unit); err != nil {
			return err
		}
	}
	return nil
}

// pieces says what becomes of a tensor.
func (pl *planner) pieces(t shard.Tensor) ([]piece, error) {
	m := pl.plan.Manifest
	views := pl.byTensor[t.Name]
	selected, dense := 0, false
	for _, i := range views {
		if sel := pl.chosen[i]; sel != nil {
			selected++
			dense = dense || sel.Format == operation.FormatDense
		}
	}
	scaled := len(views) > 0 && m.Linears[views[0]].Scale != ""
	switch {
	case selected == 0 && !scaled:
		return []piece{{item: operation.Item{Copy: t.Name}, tensors: []string{t.Name}, source: t.Length}}, nil
	case dense && !scaled && !pl.whole(t, views) && pl.allDense(views):
		pc := piece{item: operation.Item{Rebuild: t.Name}, tensors: []string{t.Name}, source: t.Length}
		for _, i := range views {
			if sel := pl.chosen[i]; sel != nil {
				e, err := pl.encodeLinear(&pc, i, sel)
				if err != nil {
					return nil, err
				}
				pc.item.Encode = append(pc.item.Encode, e)
			}
		}
		return []piece{pc}, nil
	}
	var pieces []piece
	for _, i := range views {
		l := m.Linears[i]
		pc := piece{tensors: []string{t.Name}, source: t.Length / int64(len(views))}
		if l.Scale != "" {
			pc.tensors = append(pc.tensors, l.Scale)
		}
		if sel := pl.chosen[i]; sel != nil {
			e, err := pl.encodeLinear(&pc, i, sel)
			if err != nil {
				return nil, err
			}
			pc.item.Encode = []operation.EncodeLinear{e}
			if sel.Format != operation.FormatDense {
				if err := pl.pack(i, sel); err != nil {
					return nil, err
				}
			}
		} else {
			pc.linears = []int{i}
			zero := 0
			pc.item.Cast = &zero
		}
		pieces = append(pieces, pc)
	}
	return pieces, nil
}

// allDense tells a tensor whose linears are all decoded into their places from one that has to be split.
func (pl *planner) allDense(views []int) bool {
	for _, i := range views {
		if sel := pl.chosen[i]; sel != nil && sel.Format != operation.FormatDense {
			return false
		}
	}
	return true
}

// pack notes a linear for the result's config.json.
func (pl *planner) pack(i int, sel *recipe.Selection) error {
	m := pl.plan.Manifest
	l := m.Linears[i]
	al, err := operation.AsLinear(m, l)
	if err != nil {
		return err
	}
	lay, err := sel.Method.Layout(al)
	if err != nil {
		return err
	}
	q, err := operation.Quantized(operation.EncodedLayout{Linear: l, Layout: lay, Format: sel.Format})
	if err != nil {
		return err
	}
	if q.Scheme.Activations, err = activations(l, sel); err != nil {
		return err
	}
	pl.packed = append(pl.packed, q)
	return nil
}

// whole reports whether a tensor is one linear as it stands.
func (pl *planner) whole(t shard.Tensor, views []int) bool {
	if len(views) != 1 {
		return false
	}
	l := pl.plan.Manifest.Linears[views[0]]
	return !l.Transposed && l.Expert < 0 && l.Row == 0 && len(t.Shape) == 2 && l.Rows == t.Shape[0] && l.Cols == t.Shape[1]
}

// encodeLinear says how linear i is encoded, and adds to pc what is read for it.
func (pl *planner) encodeLinear(pc *piece, i int, sel *recipe.Selection) (operation.EncodeLinear, error) {
	m := pl.plan.Manifest
	e := operation.EncodeLinear{
		Linear: pc.add(i), Method: sel.First.Name(), At: sel.First.Version(), Params: sel.Params, Format: sel.Format,
	}
	if sel.Then != nil {
		e.Then = &operation.NextMethod{Method: sel.Then.Name(), At: sel.Then.Version(), Params: sel.ThenParams}
	}
	for _, peer := range pl.peers[i] {
		e.Share = append(e.Share, pc.add(peer))
		l := m.Linears[peer]
		for _, name := range []string{l.Tensor, l.Scale} {
			if name != "" && !slices.Contains(pc.tensors, name) {
				pc.tensors = append(pc.tensors, name)
			}
		}
	}
	if pl.seeded[i] {
		e.Seed = seedFor(pl.plan.Recipe.Seed, sel.First.Name(), m.Linears[i].Name)
	}
	return e, nil
}

// add notes that the piece reads linear i, and gives its place among those the piece reads.
func (pc *piece) add(i int) int {
	at := slices.Index(pc.linears, i)
	if at < 0 {
		at = len(pc.linears)
		pc.linears = append(pc.linears, i)
	}
	return at
}

// seedFor derives a linear's seed: neither row splits nor unrelated parameters change it.
func seedFor(seed uint64, purpose, name string) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "shardpress seed\x00%d\x00%s\x00%s", seed, purpose, name))
	return binary.LittleEndian.Uint64(sum[:])
}

// add makes a unit of pieces: a spec that names only what it reads, with indices
// of its own, so that equal work has equal names in any model.
func (pl *planner) add(pieces []piece) error {
	m := pl.plan.Manifest
	params := &operation.EncodeParams{Tensors: []shard.Tensor{}, Linears: []shard.Linear{}}
	tensors, files := map[string]bool{}, map[int]int{}
	var inputs []task.Input
	unit := Unit{Block: pieces[0].block}
	for _, pc := range pieces {
		for _, name := range pc.tensors {
			if tensors[name] {
				continue
			}
			tensors[name] = true
			t, ok := m.Tensor(name)
			if !ok {
				return fmt.Errorf("plan: tensor %s: %w from the manifest", name, shard.ErrMissing)
			}
			at, ok := files[t.File]
			if !ok {
				f := m.Files[t.File]
				at = len(inputs)
				files[t.File] = at
				inputs = append(inputs, task.Input{Source: &task.Source{Kind: f.Identity.Kind, Value: f.Identity.Value}})
				unit.Files = append(unit.Files, task.File{Name: f.Name, Size: f.Size, Header: f.HeaderDigest})
			}
			t.File = at
			params.Tensors = append(params.Tensors, t)
		}
		item, base := pc.item, len(params.Linears)
		for _, i := range pc.linears {
			params.Linears = append(params.Linears, m.Linears[i])
		}
		item.Encode = slices.Clone(item.Encode)
		for k := range item.Encode {
			item.Encode[k].Linear += base
			item.Encode[k].Share = slices.Clone(item.Encode[k].Share)
			for n := range item.Encode[k].Share {
				item.Encode[k].Share[n] += base
			}
		}
		if item.Cast != nil {
			at := *item.Cast + base
			item.Cast = &at
		}
		params.Items = append(params.Items, item)
	}
	var err error
	if unit.Layout, err = params.Layout(); err != nil {
		return err
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("plan: encode parameters: %w", err)
	}
	spec := &task.Spec{Op: operation.EncodeOp, Class: operation.ClassF32, Salt: pl.options.Salt, Params: raw, Inputs: inputs}
	if unit.ID, unit.Spec, err = spec.ID(); err != nil {
		return err
	}
	unit.Spec = bytes.Clone(unit.Spec) // it was written into a buffer that is twice as large
	pl.plan.Units = append(pl.plan.Units, unit)
	return nil
}

// finish names the files and writes the documents beside them.
func (pl *planner) finish() error {
	p := pl.plan
	seen := map[task.ID]int{}
	where := map[string]string{}
	var total int64
	for i := range p.Units {
		u := &p.Units[i]
		if other, ok := seen[u.ID]; ok {
			return fmt.Errorf("plan: %w: weight files %d and %d are the same task %s", task.ErrInvalid, other+1, i+1, u.ID.Short())
		}
		seen[u.ID] = i
		u.File = fileName(i, len(p.Units))
		for _, it := range u.Layout.Items {
			for _, t := range it.Tensors {
				if other, ok := where[t.Name]; ok {
					return fmt.Errorf("plan: tensor %s: %w: it would be in %s and in %s", t.Name, shard.ErrDuplicate, other, u.File)
				}
				where[t.Name] = u.File
				n, _ := t.Bytes() // laid out already
				total += n
			}
		}
		u.report = newUnitReport(u.Layout)
		u.Layout = u.Layout.Totals()
	}
	if len(p.Units) > 1 {
		var err error
		if p.Index, err = shard.MarshalIndex(where, total); err != nil {
			return err
		}
	}
	var quantization json.RawMessage
	kv := kvCache(p.Recipe)
	if kv != nil && len(pl.packed) == 0 {
		return fmt.Errorf("plan: kv_cache: %w: no linear is compressed, and config.json says nothing of a cache alone", compress.ErrInvalid)
	}
	if len(pl.packed) > 0 {
		f, err := shard.ResultFormat(pl.packed)
		if err != nil {
			return err
		}
		p.Format = string(f)
		if quantization, err = shard.QuantizationConfigKV(p.Manifest, pl.packed, kv); err != nil {
			return err
		}
	}
	config, err := shard.OutputConfig(pl.options.Config, quantization)
	p.Config = config
	return err
}

// kvCache is what the engine is to do with keys and values, nil if nothing.
func kvCache(r *recipe.Recipe) *shard.KVCache {
	if r.KVCache == nil {
		return nil
	}
	return &shard.KVCache{Bits: int(r.KVCache.Bits), Type: r.KVCache.Type, Strategy: r.KVCache.Strategy, Group: r.KVCache.Group}
}

// activations is what the engine is to do with a linear's inputs.
func activations(l shard.Linear, sel *recipe.Selection) (shard.Activations, error) {
	a := sel.Activations
	if a == nil {
		return shard.ActivationsKept, nil
	}
	known := map[recipe.Activations]shard.Activations{
		{Bits: 8, Type: "int", Dynamic: "token"}:               shard.ActivationsInt8Token,
		{Bits: 8, Type: "float", Dynamic: "token"}:             shard.ActivationsFP8Token,
		{Bits: 8, Type: "float", Dynamic: "group", Group: 128}: shard.ActivationsFP8Group,
		{Bits: 8, Type: "float", Dynamic: "group", Group: 32}:  shard.ActivationsMXFP8Group,
		{Bits: 4, Type: "float", Dynamic: "group", Group: 32}:  shard.ActivationsMXFP4Group,
	}
	key := *a
	if key.Type == "" {
		key.Type = "int"
	}
	if found, ok := known[key]; ok {
		return found, nil
	}
	return "", fmt.Errorf("linear %s: activations of %d bits, type %s, by %s: %w: engines run int 8 and float 8 by token, float 8 by groups of 128 and 32, float 4 by groups of 32",
		l.Name, a.Bits, key.Type, a.Dynamic, compress.ErrInvalid)
}

// fileName is the name of a weight file, as loaders expect it.
func fileName(i, n int) string {
	if n == 1 {
		return "model.safetensors"
	}
	return fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, n)
}

// IDs lists the tasks of the plan in its order.
func (p *Plan) IDs() []task.ID {
	ids := make([]task.ID, len(p.Units))
	for i, u := range p.Units {
		ids[i] = u.ID
	}
	return ids
}

// SourceBytes and ResultBytes are read and written in all.
func (p *Plan) SourceBytes() (n int64) {
	for _, u := range p.Units {
		n += u.Layout.SourceBytes
	}
	return n
}

// ResultBytes is the size of the result's weight files.
func (p *Plan) ResultBytes() (n int64) {
	for _, u := range p.Units {
		n += u.Layout.Size()
	}
	return n
}
