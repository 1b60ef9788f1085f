package tensor

import (
	"errors"
	"fmt"
	"strconv"
)

// DType is the element type of a tensor. The zero value is no type.
type DType uint8

// The element types, named as in the Go code; [DType.String] gives the
// safetensors names.
const (
	F64 DType = iota + 1
	F32
	F16
	BF16
	F8E4M3
	F8E5M2
	F8E8M0
	I8
	I16
	I32
	I64
	U8
	U16
	U32
	U64
	Bool
)

// ErrDType is returned for an element type that this package does not know.
var ErrDType = errors.New("unknown element type")

// lastDType bounds the loops over all types.
const lastDType = Bool

// String returns the safetensors name of the type: "BF16", "F8_E4M3", "BOOL".
func (d DType) String() string {
	switch d {
	case F64:
		return "F64"
	case F32:
		return "F32"
	case F16:
		return "F16"
	case BF16:
		return "BF16"
	case F8E4M3:
		return "F8_E4M3"
	case F8E5M2:
		return "F8_E5M2"
	case F8E8M0:
		return "F8_E8M0"
	case I8:
		return "I8"
	case I16:
		return "I16"
	case I32:
		return "I32"
	case I64:
		return "I64"
	case U8:
		return "U8"
	case U16:
		return "U16"
	case U32:
		return "U32"
	case U64:
		return "U64"
	case Bool:
		return "BOOL"
	}
	return "DType(" + strconv.Itoa(int(d)) + ")"
}

// ParseDType returns the type of a safetensors name, or an error that wraps
// [ErrDType].
func ParseDType(s string) (DType, error) {
	for d := F64; d <= lastDType; d++ {
		if d.String() == s {
			return d, nil
		}
	}
	return 0, fmt.Errorf("parse element type %q: %w", s, ErrDType)
}

// Size returns the bytes of one element, 0 for no type.
func (d DType) Size() int {
	switch d {
	case F64, I64, U64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case F8E4M3, F8E5M2, F8E8M0, I8, U8, Bool:
		return 1
	}
	return 0
}

// Float reports whether elements of the type are floating-point numbers.
func (d DType) Float() bool { return d >= F64 && d <= F8E8M0 }
