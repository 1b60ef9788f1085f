package shard

import (
	"fmt"
	"slices"
	"strings"
)

// classifier finds the place of every tensor and the linears of a checkpoint from names and shapes, helped by config.json where names
// and shapes leave a choice.
type classifier struct {
	m         *Manifest
	c         *config
	block     [2]int64            // FP8 block of config.json, zero for none
	children  map[string]struct{} // module paths that have something below them
	scaleOf   map[string]string   // weight tensor -> tensor of its multipliers
	companion map[string]struct{} // tensors that only serve a scaled weight: no place of their own
	conv1D    bool                // GPT-2: linears are stored as cols × rows
}

// classify fills Model, Linears and Places of a manifest whose tensors are known.
func (m *Manifest) classify(c *config) error {
	k := &classifier{m: m, c: c}
	if err := k.model(); err != nil {
		return err
	}
	k.relations()
	if err := k.findConv1D(); err != nil {
		return err
	}
	m.Linears, m.Places = []Linear{}, []Place{}
	for _, t := range m.Tensors {
		if _, serves := k.companion[t.Name]; serves {
			continue
		}
		block := k.blockIndex(t.Name)
		role := k.role(t, block)
		m.Places = append(m.Places, Place{Tensor: t.Name, Block: block, Role: role})
		linears, err := k.linears(t, block, role)
		if err != nil {
			return err
		}
		m.Linears = append(m.Linears, linears...)
	}
	k.headAndEmbedding()
	return nil
}

// model reads what config.json says about the whole, and finds the decoder's blocks.
func (k *classifier) model() error {
	d := &k.m.Model
	var err error
	if d.ModelType, err = (&config{file: k.c.file, top: k.c.top}).str("model_type"); err != nil {
		return err
	}
	if _, raw := k.c.field("architectures"); raw != nil && raw[0] == '[' {
		s := &scanner{file: k.c.file, text: raw, python: true}
		err = s.array(func() error {
			v, err := s.str()
			if d.Architecture == "" {
				d.Architecture = v
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if d.HiddenSize, err = k.c.integer("hidden_size", "n_embd", "d_model", "dim"); err != nil {
		return err
	}
	layers, err := k.c.integer("num_hidden_layers", "n_layer", "num_layers", "n_layers")
	if err != nil {
		return err
	}
	if d.Quantization, k.block, err = k.c.quantization(); err != nil {
		return err
	}
	d.BlockPrefix, d.Blocks = findStack(k.m.Tensors, layers)
	if d.DType = k.c.dtype(); d.DType == "" {
		d.DType = commonDType(k.m.Tensors)
	}
	return nil
}

// commonDType returns the 16- or 32-bit float type with the most bytes, BF16 when there is none. Scales of FP8 weights do not count.
func commonDType(tensors []Tensor) DType {
	bytes := map[DType]int64{}
	for _, t := range tensors {
		if !strings.Contains(t.Name, "_scale") {
			bytes[t.DType] += t.Length
		}
	}
	best := BF16
	for _, d := range []DType{F16, F32} {
		if bytes[d] > bytes[best] {
			best = d
		}
	}
	return best
}

// relations finds what hangs together by name: modules and their children, FP8 weights and their scales.
func (k *classifier) relations() {
	k.children, k.scaleOf, k.companion = map[string]struct{}{}, map[string]string{}, map[string]struct{}{}
	for _, t := range k.m.Tensors {
		for i := strings.IndexByte(t.Name, '.'); i >= 0; {
			k.children[t.Name[:i]] = struct{}{}
			next := strings.IndexByte(t.Name[i+1:], '.')
			if next < 0 {
				break
			}
			i += 1 + next
		}
		if t.DType != F8E4M3 && t.DType != F8E5M2 {
			continue
		}
		module, ok := strings.CutSuffix(t.Name, ".weight")
		if !ok || len(t.Shape) != 2 {
			continue
		}
		for _, suffix := range []string{".weight_scale_inv", ".weight_scale"} {
			if s, ok := k.m.Tensor(module + suffix); ok && s.DType.Float() && k.scaleOf[t.Name] == "" {
				k.scaleOf[t.Name] = s.Name
				k.companion[s.Name] = struct{}{}
			}
		}
		if k.scaleOf[t.Name] == "" {
			continue
		}
		// Scales of the inputs mean nothing once the weights are 16-bit again.
		for _, suffix := range []string{".input_scale", ".activation_scale"} {
			if s, ok := k.m.Tensor(module + suffix); ok {
				k.companion[s.Name] = struct{}{}
			}
		}
	}
}

// blockIndex returns the decoder block of a tensor, -1 outside. Prediction layers after the last block are outside.
func (k *classifier) blockIndex(name string) int {
	prefix, block, ok := blockOf(name)
	if !ok || prefix != k.m.Model.BlockPrefix || block >= k.m.Model.Blocks {
		return -1
	}
	return block
}

// role names the place of a tensor.
func (k *classifier) role(t Tensor, block int) Role {
	module, leaf := splitLeaf(t.Name)
	_, last := splitLeaf(module)
	last = strings.ToLower(last)
	stack, index, numbered := blockOf(t.Name)
	beyond := numbered && stack == k.m.Model.BlockPrefix && index >= k.m.Model.Blocks
	switch {
	case beyond || isTower(t.Name) && block < 0:
		return RoleOther
	case leaf == "bias" || strings.HasSuffix(leaf, "_bias"):
		return RoleBias
	case isNorm(last):
		return RoleNorm
	case isEmbedding(last):
		return RoleEmbedding
	case block < 0 && isHead(module, last):
		return RoleHead
	case k.isRouter(t, module, last):
		return RoleRouter
	case block >= 0 && len(k.experts(t)) > 0:
		return RoleLinear
	case block >= 0 && leaf == "weight" && isMatrix(t) && !isSpecial(module):
		return RoleLinear
	}
	return RoleOther
}

// isMatrix leaves out empty matrices: their other dimension may be any number, and there is nothing to compress.
func isMatrix(t Tensor) bool { return len(t.Shape) == 2 && t.DType.Float() && t.Length > 0 }

// splitLeaf cuts a dotted name at its last dot.
func splitLeaf(name string) (parent, leaf string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

func isNorm(last string) bool {
	return strings.Contains(last, "norm") || last == "ln" || strings.HasPrefix(last, "ln_") ||
		len(last) == 3 && strings.HasPrefix(last, "ln") && (last[2] >= '0' && last[2] <= '9' || last[2] == 'f')
}

func isEmbedding(last string) bool {
	switch last {
	case "wte", "wpe", "wtt", "shared", "relative_attention_bias":
		return true
	case "embed_out":
		return false
	}
	return strings.Contains(last, "embed") || strings.HasSuffix(last, "_embd")
}

func isHead(module, last string) bool {
	switch last {
	case "lm_head", "embed_out":
		return true
	case "output", "head", "score":
		return strings.Count(module, ".") <= 1
	}
	return false
}

// isRouter: a gate is a router when experts are its siblings or when it has fewer rows than columns, as the number of experts has; the
// gate of a dense MLP has at least as many rows as columns.
func (k *classifier) isRouter(t Tensor, module, last string) bool {
	for part := range strings.SplitSeq(module, ".") {
		if part == "router" {
			return true
		}
	}
	switch last {
	case "gate", "wg":
		parent, _ := splitLeaf(module)
		_, sibling := k.children[joinName(parent, "experts")]
		return sibling || len(t.Shape) == 2 && t.Shape[0] < t.Shape[1]
	case "shared_expert_gate", "gate_inp":
		return true
	}
	return false
}

// isSpecial: matrices in a block that engines do not treat as linears. DeepSeek-V3.2's indexer chooses which tokens are attended to and
// stays in its own precision.
func isSpecial(module string) bool {
	for part := range strings.SplitSeq(strings.ToLower(module), ".") {
		if strings.Contains(part, "conv") || part == "indexer" || strings.HasPrefix(part, "rotary") {
			return true
		}
	}
	return false
}

func joinName(parent, leaf string) string {
	if parent == "" {
		return leaf
	}
	return parent + "." + leaf
}

// linears makes the views of a tensor. Matrices outside the blocks are linears too, with another role: they may be FP8, and a list of
// all linears that stay in 16 bits is part of what engines must be told.
func (k *classifier) linears(t Tensor, block int, role Role) ([]Linear, error) {
	if role == RoleLinear && len(t.Shape) == 3 {
		return k.expertLinears(t, block)
	}
	module, ok := strings.CutSuffix(t.Name, ".weight")
	if !ok || !isMatrix(t) {
		return nil, nil
	}
	switch role {
	case RoleLinear, RoleRouter, RoleHead, RoleOther:
	case RoleEmbedding:
		if k.scaleOf[t.Name] == "" {
			return nil, nil
		}
		role = RoleOther
	default:
		return nil, nil
	}
	l := Linear{Name: module, Tensor: t.Name, Rows: t.Shape[0], Cols: t.Shape[1], RowStep: 1, Expert: -1, Block: block, Role: role}
	if k.conv1D && isConv1D(module) {
		l.Rows, l.Cols, l.Transposed = l.Cols, l.Rows, true
	}
	return k.scaled(l, t)
}

// scaled adds the multipliers of an FP8 weight.
func (k *classifier) scaled(l Linear, t Tensor) ([]Linear, error) {
	name := k.scaleOf[t.Name]
	if name == "" {
		if t.DType == F8E4M3 && k.m.Model.Quantization == "fp8" {
			return nil, fmt.Errorf("read checkpoint: tensor %q is %s and has no scale %q: %w; download the checkpoint again",
				t.Name, t.DType, l.Name+".weight_scale_inv", ErrMissing)
		}
		return []Linear{l}, nil
	}
	scale, _ := k.m.Tensor(name)
	l.Scale = name
	n, _ := elements(scale.Shape)
	switch {
	case strings.HasSuffix(name, "_inv"):
		// formats.md 1.2: one multiplier per tile; 128 × 128 in everything published so far.
		if l.ScaleBlock = k.block; l.ScaleBlock == [2]int64{} {
			l.ScaleBlock = [2]int64{128, 128}
		}
	case n == 1:
		l.ScaleBlock = [2]int64{max(l.Rows, 1), max(l.Cols, 1)}
	case k.block != [2]int64{} && !slices.Equal(scale.Shape, []int64{l.Rows, 1}):
		l.ScaleBlock = k.block
	case n == l.Rows:
		l.ScaleBlock = [2]int64{1, max(l.Cols, 1)}
	}
	if err := checkScale(l, t, scale); err != nil {
		return nil, fmt.Errorf("read checkpoint: %w; correct weight_block_size in %s or download the checkpoint again", err, ConfigName)
	}
	return []Linear{l}, nil
}

// headAndEmbedding completes the model once the places are known.
func (k *classifier) headAndEmbedding() {
	d := &k.m.Model
	head := ""
	for _, p := range k.m.Places {
		if p.Block >= 0 {
			continue
		}
		_, last := splitLeaf(strings.TrimSuffix(p.Tensor, ".weight"))
		switch {
		case p.Role == RoleHead && head == "":
			head = p.Tensor
		case p.Role == RoleEmbedding && isTokenEmbedding(last) && d.Embedding == "":
			d.Embedding = p.Tensor
		}
	}
	d.Head = strings.TrimSuffix(head, ".weight")
	if head == "" {
		d.Head = "lm_head" // the module of nearly every family; engines see it although no tensor bears its name
	}
	tied, _ := k.c.flag("tie_word_embeddings")
	d.Tied = tied || head == "" && d.Embedding != "" || head != "" && d.Embedding == ""
}

func isTokenEmbedding(last string) bool {
	return slices.Contains([]string{"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "token_embd", "shared",
		"embedding", "embeddings", "embed", "tokens_embed"}, last)
}
