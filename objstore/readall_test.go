package objstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func TestReadAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		text  string
		limit int64
		want  error
	}{
		{"empty", "", 0, nil},
		{"smaller", "abc", 4, nil},
		{"as large", "abcd", 4, nil},
		{"larger", "abcde", 4, objstore.ErrTooLarge},
		{"larger than nothing", "a", 0, objstore.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := objstore.NewMem()
			if _, err := b.Put(t.Context(), "k", strings.NewReader(tt.text), -1, objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := objstore.ReadAll(t.Context(), b, "k", tt.limit)
			if !errors.Is(err, tt.want) || err == nil && string(got) != tt.text || err != nil && got != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if _, err := objstore.ReadAll(t.Context(), objstore.NewMem(), "none", 1); !errors.Is(err, objstore.ErrNotExist) {
		t.Error(err)
	}
}
