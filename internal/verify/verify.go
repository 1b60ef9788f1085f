// Package verify checks a finished result from the outside: what is on the disk
// against its table of contents, its documents and, where the source is at hand,
// the source itself.
package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// Report is what a verification found.
type Report struct {
	Result  string   `json:"result"`
	Files   int      `json:"files"`   // with their checksums
	Tensors int      `json:"tensors"` // with name, type, shape and place
	Scales  int      `json:"scales"`  // tensors of scales, every value finite and above zero
	Linears []Linear `json:"linears"` // decoded and compared with the source
	// Problems are what is wrong, one sentence each; none means verified.
	Problems []string `json:"problems"`
	// Source says whether the source was at hand.
	Source bool `json:"source"`
}

// Linear is the error of one encoded linear, measured anew and as the report has
// it. Either is nil where the error has no value: the source is zero, or a sum is
// beyond the numbers.
type Linear struct {
	Name          string   `json:"name"`
	RelativeError *float64 `json:"relative_error"`
	Reported      *float64 `json:"reported"`
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// maxProblems ends a verification that finds nothing right.
const maxProblems = 100

// Run verifies the result in a directory. source is the directory of the
// checkpoint that it was made of, or empty. An error says that the verification
// could not be done; what it found is in the report. progress, if not nil, is told
// the bytes that were checked since the last call.
func Run(ctx context.Context, result, source string, progress func(int64)) (*Report, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	r := &Report{Result: result, Linears: []Linear{}, Problems: []string{}, Source: source != ""}
	v := &verifier{Report: r, progress: progress}
	m, err := v.files(ctx)
	if err != nil || m == nil {
		return r, err
	}
	ck, err := shard.Open(ctx, result, shard.OpenOptions{})
	if err != nil {
		r.problem("the result does not open as a checkpoint: %v", err)
		return r, ctx.Err()
	}
	defer ck.Close() //nolint:errcheck // opened for reading
	v.result = ck
	if err := v.scales(ctx); err != nil {
		return r, err
	}
	report := v.report()
	if source == "" || report == nil {
		r.Tensors = len(ck.Manifest.Tensors)
		return r, nil
	}
	return r, v.source(ctx, source, m, report)
}

type verifier struct {
	*Report
	progress func(int64)
	result   *shard.Checkpoint
	shared   map[string][]byte // what fused linears share, by the first of them and the component
}

// files compares the directory with its table of contents, byte by byte.
func (v *verifier) files(ctx context.Context) (*coordinator.Manifest, error) {
	if info, err := os.Stat(v.Result); err != nil || !info.IsDir() {
		return nil, compress.Invalidf("verify %s: there is no such directory: give the one that compress made", v.Result)
	}
	dir, err := objstore.OpenDirReadOnly(v.Result)
	if err != nil {
		return nil, err
	}
	m, err := coordinator.ReadManifest(ctx, dir)
	if errors.Is(err, objstore.ErrNotExist) {
		v.problem("%s is missing: the result is unfinished, run its command again", coordinator.ManifestFile)
		return nil, nil
	}
	if err != nil {
		v.problem("%v", err)
		return nil, nil
	}
	listed := map[string]bool{coordinator.ManifestFile: true}
	for _, f := range m.Files {
		if listed[f.Name] {
			v.problem("%s lists file %s twice", coordinator.ManifestFile, f.Name)
			continue
		}
		listed[f.Name] = true
		n, sum, err := v.digest(ctx, f.Name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			v.problem("file %s is missing", f.Name)
		case errors.Is(err, errNoFile):
			v.problem("%s is not a file", f.Name)
		case err != nil:
			return nil, err
		case n != f.Size:
			v.problem("file %s holds %d bytes, not %d", f.Name, n, f.Size)
		case sum != f.SHA256:
			v.problem("file %s is damaged: its SHA-256 is %s, not %s", f.Name, sum, f.SHA256)
		default:
			v.Files++
		}
	}
	for info, err := range dir.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		if !listed[info.Key] && loaded(info.Key) {
			v.problem("file %s is no part of the result: loaders may read it", info.Key)
		}
	}
	if !listed[coordinator.ReportFile] {
		v.problem("%s does not list %s", coordinator.ManifestFile, coordinator.ReportFile)
	}
	return m, nil
}

// loaded reports whether a loader may take a file for part of the model.
func loaded(name string) bool {
	for _, suffix := range []string{".safetensors", ".safetensors.index.json", "config.json"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// errNoFile says that there is something else where a file is due.
var errNoFile = errors.New("not a regular file")

func (v *verifier) digest(ctx context.Context, name string) (int64, string, error) {
	path := filepath.Join(v.Result, filepath.FromSlash(name))
	if info, err := os.Stat(path); err != nil {
		return 0, "", err
	} else if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return 0, "", errNoFile
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return 0, "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		total += int64(n)
		v.progress(int64(n))
		if err == io.EOF {
			return total, hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return 0, "", fmt.Errorf("read %s: %w", name, err)
		}
	}
}

// scales checks that every scale is a usable number in the type it is stored in.
func (v *verifier) scales(ctx context.Context) error {
	m := v.result.Manifest
	for _, t := range m.Tensors {
		if !strings.HasSuffix(t.Name, ".weight_scale") {
			continue
		}
		d, err := tensor.ParseDType(string(t.DType))
		if d == tensor.U8 { // the microscaling formats' powers of two
			d = tensor.F8E8M0
		}
		if err != nil || !d.Float() {
			v.problem("tensor %s: scales of type %s", t.Name, t.DType)
			continue
		}
		raw := make([]byte, min(t.Length, 1<<20))
		values := make([]float32, len(raw)/d.Size())
		good := true
		for off := int64(0); off < t.Length && good; off += int64(len(raw)) {
			part := raw[:min(int64(len(raw)), t.Length-off)]
			if err := v.result.ReadAt(ctx, t.File, part, t.Offset+off); err != nil {
				return err
			}
			vals := values[:len(part)/d.Size()]
			tensor.ToFloat32(vals, part, d)
			for i, s := range vals {
				if !(s > 0) || math.IsInf(float64(s), 0) { // no method makes a negative one
					v.problem("tensor %s: scale %d is %v", t.Name, off/int64(d.Size())+int64(i), s)
					good = false
					break
				}
			}
		}
		if good {
			v.Scales++
		}
	}
	return nil
}

// source plans the same result again and holds everything against it.
//
//nolint:gocyclo // one check after the other
func (v *verifier) source(ctx context.Context, source string, m *coordinator.Manifest, report *given) error {
	src, err := shard.Open(ctx, source, shard.OpenOptions{})
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer src.Close() //nolint:errcheck // opened for reading
	if name := otherSource(src.Manifest, m.Source); name != "" {
		v.problem("%s is not the source that the result was made of: %s differs", source, name)
		return nil
	}
	rec, err := recipe.ParseCanonical(coordinator.ManifestFile, m.Recipe)
	if err != nil {
		v.problem("%v", err)
		return nil
	}
	plan, err := coordinator.NewPlan(src.Manifest, rec, coordinator.PlanOptions{Config: src.Config})
	if err != nil {
		v.problem("the result's recipe cannot be applied to %s: %v", source, err)
		return nil
	}
	for _, doc := range []struct {
		name string
		want []byte
	}{{"config.json", plan.Config}, {"model.safetensors.index.json", plan.Index}} {
		if doc.want == nil {
			continue
		}
		got, err := v.document(doc.name)
		switch {
		case err != nil:
			v.problem("%v", err)
		case !bytes.Equal(got, doc.want):
			v.problem("%s is not what the recipe makes of the source's", doc.name)
		}
	}
	v.extras(src)
	if err := v.compareReport(plan, report); err != nil {
		return err
	}
	if err := v.tensors(plan); err != nil || len(v.Problems) > 0 {
		return err // decoding needs the right shapes
	}
	return v.linears(ctx, src, plan, report)
}

// tensors compares names, types, shapes and files with the plan's.
func (v *verifier) tensors(plan *coordinator.Plan) error {
	m := v.result.Manifest
	want := map[string]bool{}
	for _, u := range plan.Units {
		_, layout, err := u.Work()
		if err != nil {
			return err
		}
		for _, it := range layout.Items {
			for _, t := range it.Tensors {
				want[t.Name] = true
				got, ok := m.Tensor(t.Name)
				switch {
				case !ok:
					v.problem("tensor %s is missing", t.Name)
				case got.DType != t.DType || fmt.Sprint(got.Shape) != fmt.Sprint(t.Shape):
					v.problem("tensor %s is %s %v, not %s %v", t.Name, got.DType, got.Shape, t.DType, t.Shape)
				case m.Files[got.File].Name != u.File:
					v.problem("tensor %s is in %s, not in %s", t.Name, m.Files[got.File].Name, u.File)
				default:
					v.Tensors++
				}
				if len(v.Problems) > maxProblems {
					return nil
				}
			}
		}
	}
	for _, t := range m.Tensors {
		if !want[t.Name] {
			v.problem("tensor %s is no part of the result", t.Name)
		}
	}
	return nil
}
