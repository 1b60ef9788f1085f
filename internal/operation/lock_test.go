package operation

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/shard"
)

// lockFile says for each operation, and each operation with a method, which bytes
// it makes of fixed inputs. A line is never changed: bytes that change need a new
// version, which gets a line of its own.
const lockFile = "testdata/operations.lock"

var update = flag.Bool("update", false, "add lines for new versions to "+lockFile)

// TestOperationsAreLocked fails when an operation's bytes change without a new
// version: results of the old bytes would be taken for those of the new.
func TestOperationsAreLocked(t *testing.T) {
	t.Parallel()
	locked := readLock(t)
	for _, got := range digests(t) {
		want, ok := locked[got.name]
		switch {
		case ok && want != got.digest:
			t.Errorf("%s makes other bytes (%s) than %s says (%s).\nIf that is meant, give the operation or the method a new version and run go test ./internal/operation -run Locked -update; if not, it is a bug that would mix unlike results.",
				got.name, got.digest[:12], lockFile, want[:12])
		case !ok && *update:
			f, err := os.OpenFile(lockFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(f, "%s %s\n", got.name, got.digest); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		case !ok:
			t.Errorf("%s has no line in %s: run go test ./internal/operation -run Locked -update", got.name, lockFile)
		}
	}
}

func readLock(t *testing.T) map[string]string {
	t.Helper()
	locked := map[string]string{}
	b, err := os.ReadFile(lockFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
		name, digest, ok := strings.Cut(s.Text(), " ")
		if strings.HasPrefix(name, "#") || name == "" {
			continue
		}
		if !ok || len(digest) != 64 || locked[name] != "" {
			t.Fatalf("%s: line %q", lockFile, s.Text())
		}
		locked[name] = digest
	}
	return locked
}

type locked struct{ name, digest string }

// digests runs every operation of this program, alone and with every method, on
// every kernel of this machine.
func digests(t *testing.T) []locked {
	t.Helper()
	ck := checkpoint(t, fixed())
	v := views()
	var out []locked
	add := func(name string, cases []*EncodeParams) {
		var first string
		for _, k := range kernels(t) {
			h := sha256.New()
			for _, p := range cases {
				h.Write([]byte(must(t, ck, p, k).digest()))
			}
			d := hex.EncodeToString(h.Sum(nil))
			if first == "" {
				first = d
			}
			if d != first {
				t.Errorf("%s: kernel %s makes other bytes than the first one", name, k)
			}
		}
		out = append(out, locked{name, first})
	}
	// The operation itself: copies and casts, and the layout of the file.
	plain := &EncodeParams{Tensors: ck.Manifest.Tensors}
	for _, name := range []string{"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.mlp.odd.weight"} {
		plain.Items = append(plain.Items, Item{Copy: name})
	}
	for _, name := range []string{"fp8", "gate0", "gate1", "conv"} {
		n := len(plain.Linears)
		plain.Linears = append(plain.Linears, v[name])
		plain.Items = append(plain.Items, Item{Cast: &n})
	}
	add(EncodeOp, []*EncodeParams{plain})

	methods, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range methods {
		var cases []*EncodeParams
		for _, params := range variants(m.Name) {
			for _, format := range []string{FormatPack, FormatInt, FormatDense} {
				cases = append(cases, encodeAll(ck, v, m.Name, m.Version, params, format))
			}
		}
		if len(cases) == 0 {
			t.Errorf("method %s has no variants here: add some, so that its bytes are locked", m.Name)
		}
		add(fmt.Sprintf("%s+%s@%d", EncodeOp, m.Name, m.Version), cases)
	}
	return out
}

// variants are parameters of a method that together reach all of its code.
func variants(method string) []string {
	if method != "rtn" {
		return nil
	}
	var list []string
	for bits := 2; bits <= 8; bits++ {
		for _, symmetric := range []bool{true, false} {
			for _, strategy := range []string{`"group","group":32`, `"group","group":128`, `"channel"`} {
				list = append(list, fmt.Sprintf(`{"bits":%d,"symmetric":%v,"strategy":%s}`, bits, symmetric, strategy))
			}
		}
		list = append(list, fmt.Sprintf(`{"bits":%d,"strategy":"tensor"}`, bits))
	}
	return append(list,
		`{"bits":4,"strategy":"group","group":128,"search":true}`,
		`{"bits":3,"symmetric":false,"strategy":"channel","search":true}`,
		`{"bits":4,"strategy":"tensor","search":true}`)
}

// encodeAll encodes every linear of the fixed checkpoint that the format can hold.
func encodeAll(ck *shard.Checkpoint, v map[string]shard.Linear, method string, version int, params, format string) *EncodeParams {
	p := &EncodeParams{Tensors: ck.Manifest.Tensors}
	names := []string{"bf16", "f16", "f32", "f64", "fp8", "gate0", "gate1"}
	if strings.Contains(params, `"channel"`) || strings.Contains(params, `"tensor"`) {
		names = append(names, "odd") // groups do not divide it
	}
	slices.Sort(names)
	for _, name := range names {
		l := v[name]
		if format == FormatDense && l.Expert >= 0 {
			continue // rebuilt below
		}
		p.Items = append(p.Items, Item{Encode: []EncodeLinear{p.encode(l, method, version, params, format)}})
	}
	if format == FormatDense {
		stack := Item{Rebuild: "model.layers.0.mlp.stacked"}
		for _, name := range []string{"gate0", "gate1"} {
			stack.Encode = append(stack.Encode, p.encode(v[name], method, version, params, format))
		}
		conv := Item{Rebuild: "model.layers.0.mlp.conv.weight", Encode: []EncodeLinear{p.encode(v["conv"], method, version, params, format)}}
		p.Items = append(p.Items, stack, conv)
	}
	return p
}

func (p *EncodeParams) encode(l shard.Linear, method string, version int, params, format string) EncodeLinear {
	p.Linears = append(p.Linears, l)
	return EncodeLinear{Linear: len(p.Linears) - 1, Method: method, At: version, Params: json.RawMessage(params), Format: format}
}
