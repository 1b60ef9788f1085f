package coordinator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/shardpress/shardpress/internal/operation"
)

// ReportVersion is the version of report.json's schema, docs/report.md.
const ReportVersion = 1

// Report is what report.json says of a result. It holds only what follows from
// source and recipe: no times, no machines, no paths.
type Report struct {
	Version    int             `json:"version"`
	Model      ReportModel     `json:"model"`
	Recipe     json.RawMessage `json:"recipe"`
	Format     string          `json:"format"`
	Numerics   string          `json:"numerics"`
	Operations []string        `json:"operations"`
	Source     ReportSize      `json:"source"`
	Result     ReportSize      `json:"result"`
	// Ratio is the bytes of the source's weight files over the result's.
	Ratio float64 `json:"compression_ratio"`
	// BitsPerWeight is the result's tensor bits over the source's weights: all of
	// them, scales, zero points and indices counted.
	BitsPerWeight float64 `json:"bits_per_weight"`
	// EncodedBitsPerWeight is the same over encoded linears alone.
	EncodedBitsPerWeight float64        `json:"encoded_bits_per_weight"`
	Linears              []ReportLinear `json:"linears"`
	Notes                []string       `json:"notes"`
}

// ReportModel is what the source is.
type ReportModel struct {
	Architecture string `json:"architecture"`
	ModelType    string `json:"model_type"`
	DType        string `json:"dtype"`
	Blocks       int    `json:"blocks"`
	Weights      int64  `json:"weights"`
	Tied         bool   `json:"tied"`
}

// ReportSize is a side of the comparison.
type ReportSize struct {
	Bytes int64 `json:"bytes"` // weight files, headers included
	Files int   `json:"files"`
}

// ReportLinear is one encoded linear.
type ReportLinear struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	Cols   int64  `json:"cols"`
	Method string `json:"method"` // with its version
	Bits   int    `json:"bits"`
	// BitsPerWeight counts scales, zero points and the padding of rows.
	BitsPerWeight float64 `json:"bits_per_weight"`
	// RelativeError is ‖w−ŵ‖/‖w‖ (Frobenius), SNR the same in decibel,
	// 10·log10(Σw²/Σ(w−ŵ)²). They are null where a sum overflows or is zero. docs/report.md
	// explains every field, and a test of cmd/shardpress keeps it so.
	RelativeError *float64 `json:"relative_error"`
	SNR           *float64 `json:"snr_db"`
}

// unitReport is what the report will say of a unit, without the errors.
type unitReport struct {
	linears                           []ReportLinear
	bits, encodedBits, encodedWeights int64
}

func newUnitReport(l *operation.Layout) unitReport {
	var u unitReport
	n := 0
	for _, it := range l.Items {
		n += len(it.Encoded)
	}
	u.linears = make([]ReportLinear, 0, n)
	for _, it := range l.Items {
		for _, t := range it.Tensors {
			n, _ := t.Bytes() // laid out already
			u.bits += 8 * n
		}
		for _, x := range it.Encoded {
			n := x.Linear.Rows * x.Linear.Cols
			own := 8 * x.Layout.Bytes()
			u.encodedBits += own
			u.encodedWeights += n
			u.linears = append(u.linears, ReportLinear{
				Name: x.Linear.Name, Rows: x.Linear.Rows, Cols: x.Linear.Cols,
				Method: fmt.Sprintf("%s@%d", x.Method.Name(), x.Method.Version()), Bits: x.Layout.Scheme.CodeBits(),
				BitsPerWeight: round(float64(own) / float64(n)),
			})
		}
	}
	return u
}

// NewReport puts the report together from the plan and the statistics in its order.
func NewReport(p *Plan, stats []operation.LinearStats) (*Report, error) {
	m := p.Manifest
	r := &Report{
		Version:  ReportVersion,
		Model:    ReportModel{m.Model.Architecture, m.Model.ModelType, string(m.Model.DType), m.Model.Blocks, 0, m.Model.Tied},
		Format:   p.Format,
		Numerics: operation.ClassF32, Operations: []string{operation.EncodeOp},
		Source: ReportSize{Files: len(m.Files)}, Result: ReportSize{Files: len(p.Units), Bytes: p.ResultBytes()},
		Linears: []ReportLinear{}, Notes: p.Notes,
	}
	if r.Notes == nil {
		r.Notes = []string{}
	}
	var err error
	if r.Recipe, err = p.Recipe.Canonical(); err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		r.Source.Bytes += f.Size
	}
	placed := map[string]bool{}
	for _, place := range m.Places {
		placed[place.Tensor] = true
	}
	for _, t := range m.Tensors {
		if placed[t.Name] { // scales are not weights
			r.Model.Weights += elements(t.Shape)
		}
	}
	var all unitReport
	for _, u := range p.Units {
		all.bits += u.report.bits
		all.encodedBits += u.report.encodedBits
		all.encodedWeights += u.report.encodedWeights
		for _, l := range u.report.linears {
			if len(stats) == 0 || stats[0].Name != l.Name {
				return nil, fmt.Errorf("write report: no statistics of linear %s where they are due", l.Name)
			}
			l.RelativeError, l.SNR = relative(stats[0]), snr(stats[0])
			stats = stats[1:]
			r.Linears = append(r.Linears, l)
		}
	}
	r.Ratio = round(float64(r.Source.Bytes) / float64(max(r.Result.Bytes, 1)))
	r.BitsPerWeight = round(float64(all.bits) / float64(max(r.Model.Weights, 1)))
	r.EncodedBitsPerWeight = round(float64(all.encodedBits) / float64(max(all.encodedWeights, 1)))
	return r, nil
}

// round keeps six significant decimals behind the point: the last bits of a
// logarithm may differ between machines, and nobody reads them.
func round(v float64) float64 { return math.Round(v*1e6) / 1e6 }

func relative(s operation.LinearStats) *float64 {
	if s.Error == nil || s.Power == nil || *s.Power == 0 {
		return nil
	}
	// Small errors keep their digits: the figure is not rounded, and division and
	// square root are exact to the last bit everywhere.
	v := math.Sqrt(*s.Error / *s.Power)
	return &v
}

func snr(s operation.LinearStats) *float64 {
	if s.Error == nil || s.Power == nil || *s.Power == 0 || *s.Error == 0 {
		return nil
	}
	v := round(10 * math.Log10(*s.Power / *s.Error))
	return &v
}

func elements(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

// Encode returns the bytes of report.json.
func (r *Report) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

// Worst is the linear with the largest relative error, nil if none has one.
func (r *Report) Worst() *ReportLinear {
	var worst *ReportLinear
	for i := range r.Linears {
		l := &r.Linears[i]
		if l.RelativeError != nil && (worst == nil || *l.RelativeError > *worst.RelativeError) {
			worst = l
		}
	}
	return worst
}
