package tensor

import (
	"errors"
	"testing"
)

func TestDTypeNames(t *testing.T) {
	t.Parallel()
	want := map[string]int{
		"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
		"I8": 1, "I16": 2, "I32": 4, "I64": 8, "U8": 1, "U16": 2, "U32": 4, "U64": 8, "BOOL": 1,
	}
	for name, size := range want {
		d, err := ParseDType(name)
		if err != nil || d.String() != name || d.Size() != size {
			t.Errorf("ParseDType(%q) = %v of %d bytes, %v; want %d bytes", name, d, d.Size(), err, size)
		}
		if d.Float() != (name[0] == 'F' || name == "BF16") {
			t.Errorf("%v.Float() = %v", d, d.Float())
		}
	}
	if len(want) != int(lastDType) {
		t.Errorf("the table has %d types, the package %d", len(want), lastDType)
	}
	for _, name := range []string{"", "bf16", "F4", "DType(0)"} {
		if d, err := ParseDType(name); !errors.Is(err, ErrDType) || d != 0 {
			t.Errorf("ParseDType(%q) = %v, %v; want ErrDType", name, d, err)
		}
	}
	if d := DType(0); d.Size() != 0 || d.Float() || d.String() != "DType(0)" {
		t.Errorf("the zero DType is %v of %d bytes", d, d.Size())
	}
}
