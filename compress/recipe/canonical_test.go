package recipe

import (
	"bytes"
	"testing"
)

func TestCanonicalReadsBack(t *testing.T) {
	t.Parallel()
	presets, err := Presets()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range presets {
		want, err := r.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCanonical("report.json", want)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		if got, err := back.Canonical(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: read back as\n%s (%v), want\n%s", r.Name, got, err, want)
		}
	}
	for _, bad := range []string{``, `{`, `{"versio":1}`, `{"version":1,"seed":"x"}`, `{"version":1,"seed":"0","steps":[{"method":"nope"}]}`, `{"version":1,"seed":"0","steps":[{"method":"rtn","then":{"method":"nope"}}]}`} {
		if _, err := ParseCanonical("x", []byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
