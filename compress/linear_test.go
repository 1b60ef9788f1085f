package compress_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

func TestNewWeights(t *testing.T) {
	t.Parallel()
	l := compress.Linear{Name: "l", Rows: 5, Cols: 3, DType: "F16"}
	data := make([]byte, 5*3*2)
	for i := range data {
		data[i] = byte(i)
	}
	w, err := compress.NewWeights(l, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range []int{1, 2, 5, 100} {
		var got []byte
		next := int64(0)
		for p, err := range w.Panels(t.Context(), rows) {
			if err != nil || p.Row != next || p.Rows > rows {
				t.Fatalf("panel %d+%d, %v, in panels of %d from %d", p.Row, p.Rows, err, rows, next)
			}
			if err := p.Validate(l); err != nil {
				t.Error(err)
			}
			next += int64(p.Rows)
			got = append(got, p.Data...)
		}
		if !slices.Equal(got, data) {
			t.Errorf("panels of %d rows give %x", rows, got)
		}
	}
	for _, err := range w.Panels(t.Context(), 2) {
		if err != nil {
			t.Error(err)
		}
		break // a reader may stop
	}
	for _, err := range w.Panels(t.Context(), 0) {
		if err == nil {
			t.Error("panels of no rows")
		}
	}
	for _, n := range []int{0, 29, 31, 36} {
		if _, err := compress.NewWeights(l, make([]byte, n)); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
}

func TestInvalidf(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	err := fmt.Errorf("outside: %w", compress.Invalidf("inside: %w", cause))
	if !errors.Is(err, compress.ErrInvalid) || !errors.Is(err, cause) || err.Error() != "outside: inside: cause" {
		t.Errorf("error %v", err)
	}
}

func TestParameter(t *testing.T) {
	t.Parallel()
	whole := compress.Parameter{Name: "n", Kind: compress.ParameterInt, Min: -2, Max: 7}
	number := compress.Parameter{Name: "f", Kind: compress.ParameterFloat, Min: 0, Max: 1}
	free := compress.Parameter{Name: "f", Kind: compress.ParameterFloat}
	flag := compress.Parameter{Name: "b", Kind: compress.ParameterBool}
	choice := compress.Parameter{Name: "s", Kind: compress.ParameterString, Choices: []string{"a", "b"}}
	text := compress.Parameter{Name: "s", Kind: compress.ParameterString}
	for _, test := range []struct {
		p    compress.Parameter
		text string
		want any // nil: refused
	}{
		{whole, "7", int64(7)}, {whole, "-2", int64(-2)}, {whole, "8", nil}, {whole, "-3", nil}, {whole, "1.0", nil}, {whole, "", nil},
		{whole, "99999999999999999999", nil},
		{number, "0.5", 0.5}, {number, "1", 1.0}, {number, "1.01", nil}, {number, "NaN", nil}, {free, "Inf", nil}, {free, "-1e9", -1e9},
		{flag, "true", true}, {flag, "false", false}, {flag, "1", nil},
		{choice, "a", "a"}, {choice, "c", nil}, {text, "c", "c"},
	} {
		v, err := test.p.Parse(test.text)
		if test.want == nil && !errors.Is(err, compress.ErrInvalid) || test.want != nil && (err != nil || v != test.want) {
			t.Errorf("%s=%s: %v, %v, want %v", test.p.Name, test.text, v, err, test.want)
		}
	}
	if v, err := number.Check(int64(1)); err != nil || v != 1.0 {
		t.Errorf("a whole number for a number: %v, %v", v, err)
	}
	for p, wrong := range map[*compress.Parameter]any{&whole: 4, &number: "0", &flag: "true", &text: true} {
		if _, err := p.Check(wrong); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s takes %T", p.Name, wrong)
		}
	}
}
