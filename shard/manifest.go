package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// ManifestVersion is the version of the manifest's bytes.
const ManifestVersion = 1

// Role says what a tensor or a linear is to the decoder.
type Role string

// Roles.
const (
	RoleLinear    Role = "linear"    // a weight matrix inside a block
	RoleEmbedding Role = "embedding" // a table indexed by tokens or positions
	RoleHead      Role = "head"      // the matrix that makes logits
	RoleNorm      Role = "norm"
	RoleRouter    Role = "router" // chooses experts
	RoleBias      Role = "bias"
	RoleOther     Role = "other" // anything else, including prediction layers beyond the decoder and towers for other inputs
)

func (r Role) known() bool {
	switch r {
	case RoleLinear, RoleEmbedding, RoleHead, RoleNorm, RoleRouter, RoleBias, RoleOther:
		return true
	}
	return false
}

// File is a weight file and the identity of its bytes.
type File struct {
	Name         string   `json:"name"` // inside the checkpoint's directory
	Size         int64    `json:"size"`
	HeaderDigest string   `json:"header_digest"` // hex SHA-256 of the length and the header
	Identity     Identity `json:"identity"`
}

// Linear is a weight matrix of rows (outputs) × cols (inputs), seen through the tensor that stores it.
//
// The tensor is a matrix, or with Expert >= 0 a stack of matrices of which Expert selects one. Row r of the linear is row
// Row + r*RowStep of that matrix, or its column when Transposed.
type Linear struct {
	Name       string   `json:"name"`   // module, without ".weight"
	Tensor     string   `json:"tensor"` // that stores it
	Rows       int64    `json:"rows"`
	Cols       int64    `json:"cols"`
	Row        int64    `json:"row"`                  // first row inside the matrix
	RowStep    int64    `json:"row_step"`             // 1, or 2 where the rows of two linears take turns
	Transposed bool     `json:"transposed,omitempty"` // stored as cols × rows
	Expert     int      `json:"expert"`               // index of the matrix in a 3-D tensor, -1 for a 2-D one
	Scale      string   `json:"scale,omitempty"`      // tensor of multipliers for FP8 weights, "" for none
	ScaleBlock [2]int64 `json:"scale_block,omitzero"` // rows and columns that share a multiplier
	Block      int      `json:"block"`                // decoder block, -1 outside
	Role       Role     `json:"role"`                 // linear, router, head or other
}

// Place says where in the decoder a tensor belongs. Scales of FP8 weights have no place: they are read with their weight.
type Place struct {
	Tensor string `json:"tensor"`
	Block  int    `json:"block"` // -1 outside the blocks
	Role   Role   `json:"role"`
}

// Extra is a file that is carried over unchanged.
type Extra struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Skipped is a file of the source that is not carried over.
type Skipped struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Model is what names, shapes and config.json say about the whole.
type Model struct {
	Architecture string `json:"architecture"` // first of config.json's architectures, "" when unknown
	ModelType    string `json:"model_type"`   // "" when unknown
	DType        DType  `json:"dtype"`        // the type that the model is meant to be loaded in
	Quantization string `json:"quantization"` // quant_method of a source that is quantized already, "" for none
	Tied         bool   `json:"tied"`         // embedding and head share one tensor, stored under either name
	Blocks       int    `json:"blocks"`       // decoder blocks; Place.Block counts from 0
	BlockPrefix  string `json:"block_prefix"` // "model.layers"
	HiddenSize   int64  `json:"hidden_size"`  // 0 when unknown
	Embedding    string `json:"embedding"`    // tensor of the token embedding, "" when only the head is stored
	Head         string `json:"head"`         // module that makes logits, also when it has no tensor of its own
}

// Manifest describes a checkpoint. It does not change once it is made.
type Manifest struct {
	Version int       `json:"version"`
	Model   Model     `json:"model"`
	Files   []File    `json:"files"`   // by name
	Tensors []Tensor  `json:"tensors"` // by file, then offset, then length, then name
	Linears []Linear  `json:"linears"` // by tensor, then expert, then row
	Places  []Place   `json:"places"`  // by tensor
	Extras  []Extra   `json:"extras"`  // by name
	Skipped []Skipped `json:"skipped"` // by name

	byName map[string]int // into Tensors; nil in a manifest that was put together by hand
}

// Index makes Tensor fast for a manifest that was put together by hand, whose tensors do not change any more.
func (m *Manifest) Index() {
	m.byName = make(map[string]int, len(m.Tensors))
	for i, t := range m.Tensors {
		m.byName[t.Name] = i
	}
}

// Tensor finds a tensor by name.
func (m *Manifest) Tensor(name string) (Tensor, bool) {
	if m.byName != nil {
		i, ok := m.byName[name]
		if !ok {
			return Tensor{}, false
		}
		return m.Tensors[i], true
	}
	for _, t := range m.Tensors {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// LinearDType returns the type of the elements that ReadRows gives for a linear: the stored one, or BF16 for scaled FP8.
func (m *Manifest) LinearDType(l Linear) (DType, error) {
	t, ok := m.Tensor(l.Tensor)
	if !ok {
		return "", fmt.Errorf("read linear %q: tensor %q: %w from the manifest", l.Name, l.Tensor, ErrMissing)
	}
	if l.Scale != "" {
		return BF16, nil
	}
	return t.DType, nil
}

// RowBytes returns the bytes of one row as ReadRows gives it.
func (m *Manifest) RowBytes(l Linear) (int64, error) {
	d, err := m.LinearDType(l)
	return l.Cols * d.Size(), err
}

// MarshalCanonical returns the bytes of the manifest, the same for equal manifests.
func (m *Manifest) MarshalCanonical() ([]byte, error) {
	b, err := marshal(m, "")
	if err != nil {
		return nil, fmt.Errorf("marshal manifest: %w", err)
	}
	return b, nil
}

// ParseManifest reads the bytes that MarshalCanonical made and refuses all others, so that a manifest has one spelling and one digest.
// Every number in it is checked: a manifest that parses can be read from without further thought about its ranges.
func ParseManifest(b []byte) (*Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := &Manifest{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w: %w; plan the run again", ErrMalformed, err)
	}
	if err := m.finish(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w; plan the run again", err)
	}
	again, err := m.MarshalCanonical()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("parse manifest: bytes are not canonical: %w; plan the run again", ErrMalformed)
	}
	return m, nil
}
