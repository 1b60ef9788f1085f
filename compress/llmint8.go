package compress

// KindLLMInt8 is the kind of LLMInt8.
const KindLLMInt8 = "llmint8"

// LLMInt8 is the scheme of the weights of LLM.int8() (Dettmers et al., arXiv 2208.07339, equation 4): signed bytes and the largest
// magnitude of each row, w ≈ code · absmax / 127.
//
// Its components are
//
//	codes   I8 [rows, cols]
//	absmax  F32 [rows]
type LLMInt8 struct{}

// reciprocal127 is 1/127 rounded to float32: the library multiplies where the paper divides.
const reciprocal127 = float32(1.0 / 127)

// Kind implements Scheme.
func (LLMInt8) Kind() string { return KindLLMInt8 }

// CodeBits implements Scheme.
func (LLMInt8) CodeBits() int { return 8 }

// Validate implements Scheme.
func (LLMInt8) Validate(_, cols int64) error {
	if cols < 1 {
		return Invalidf("decode scheme: %d columns", cols)
	}
	return nil
}

// Components implements Scheme.
func (LLMInt8) Components(rows, cols int64) []Component {
	return []Component{
		{Name: ComponentCodes, DType: "I8", Shape: []int64{rows, cols}},
		{Name: ComponentAbsmax, DType: "F32", Shape: []int64{rows}},
	}
}

// Decode implements Scheme: code · absmax is rounded to float32 before it is multiplied by 1/127.
func (s LLMInt8) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	for row := range e.Rows {
		absmax := floatAt(e.Data[1], row)
		codes, out := e.Data[0][row*cols:][:cols], dst[row*cols:][:cols]
		for i, c := range codes {
			out[i] = float32(float32(int8(c))*absmax) * reciprocal127
		}
	}
	return nil
}
