package coordinator

import (
	"bytes"
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
	packed   []shard.QuantizedLinear   // for the result's config.json
}

// choose asks the recipe about every linear.
func (pl *planner) choose() error {
	m, r := pl.plan.Manifest, pl.plan.Recipe
	all := make([]compress.Linear, len(m.Linears))
	pl.chosen = map[int]*recipe.Selection{}
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
		if _, err := sel.Method.Layout(all[i]); err != nil {
			return err
		}
		if m.Linears[i].Transposed && pl.plan.Format != operation.FormatDense && m.Linears[i].Expert < 0 {
			return fmt.Errorf("linear %s: format %s: %w: engines have no packed form of weights that are stored transposed; choose --set output.format=dense",
				all[i].Name, pl.plan.Format, compress.ErrInvalid)
		}
		pl.chosen[i] = &sel
	}
	if len(pl.chosen) == 0 {
		return fmt.Errorf("plan: %w: the recipe selects none of the checkpoint's %d linears", compress.ErrInvalid, len(all))
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
	selected := 0
	for _, i := range views {
		if pl.chosen[i] != nil {
			selected++
		}
	}
	scaled := len(views) > 0 && m.Linears[views[0]].Scale != ""
	switch {
	case selected == 0 && !scaled:
		return []piece{{item: operation.Item{Copy: t.Name}, tensors: []string{t.Name}, source: t.Length}}, nil
	case pl.plan.Format == operation.FormatDense && !scaled && !pl.whole(t, views):
		pc := piece{item: operation.Item{Rebuild: t.Name}, tensors: []string{t.Name}, source: t.Length}
		for _, i := range views {
			if sel := pl.chosen[i]; sel != nil {
				pc.linears = append(pc.linears, i)
				pc.item.Encode = append(pc.item.Encode, pl.encodeLinear(len(pc.linears)-1, sel))
			}
		}
		return []piece{pc}, nil
	}
	var pieces []piece
	for _, i := range views {
		l := m.Linears[i]
		pc := piece{tensors: []string{t.Name}, linears: []int{i}, source: t.Length / int64(len(views))}
		if l.Scale != "" {
			pc.tensors = append(pc.tensors, l.Scale)
		}
		if sel := pl.chosen[i]; sel != nil {
			pc.item.Encode = []operation.EncodeLinear{pl.encodeLinear(0, sel)}
			al, err := operation.AsLinear(m, l)
			if err != nil {
				return nil, err
			}
			lay, err := sel.Method.Layout(al)
			if err != nil {
				return nil, err
			}
			q := operation.Quantized(operation.EncodedLayout{Linear: l, Layout: lay})
			if q.Scheme.Activations, err = activations(l, sel); err != nil {
				return nil, err
			}
			pl.packed = append(pl.packed, q)
		} else {
			zero := 0
			pc.item.Cast = &zero
		}
		pieces = append(pieces, pc)
	}
	return pieces, nil
}

// whole reports whether a tensor is one linear as it stands.
func (pl *planner) whole(t shard.Tensor, views []int) bool {
	if len(views) != 1 {
		return false
	}
	l := pl.plan.Manifest.Linears[views[0]]
	return !l.Transposed && l.Expert < 0 && l.Row == 0 && len(t.Shape) == 2 && l.Rows == t.Shape[0] && l.Cols == t.Shape[1]
}

func (pl *planner) encodeLinear(index int, sel *recipe.Selection) operation.EncodeLinear {
	return operation.EncodeLinear{
		Linear: index, Method: sel.Method.Name(), At: sel.Method.Version(), Params: sel.Params, Format: pl.plan.Format,
	}
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
	if p.Format != operation.FormatDense {
		var err error
		if quantization, err = shard.QuantizationConfig(p.Manifest, shard.Format(p.Format), pl.packed); err != nil {
			return err
		}
	}
	config, err := shard.OutputConfig(pl.options.Config, quantization)
	p.Config = config
	return err
}

// activations is what the engine is to do with a linear's inputs.
func activations(l shard.Linear, sel *recipe.Selection) (shard.Activations, error) {
	switch a := sel.Activations; {
	case a == nil:
		return shard.ActivationsKept, nil
	case a.Bits == 8:
		return shard.ActivationsInt8Token, nil
	default:
		return "", fmt.Errorf("linear %s: activations of %d bits: %w: engines run 8", l.Name, a.Bits, compress.ErrInvalid)
	}
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
