package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/shard"
)

// maxDocument bounds a document of the result, in bytes.
const maxDocument = 256 << 20

// document reads a JSON file of the result.
func (v *verifier) document(name string) ([]byte, error) {
	path := filepath.Join(v.Result, name)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("file %s is missing", name)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxDocument)
	}
	return b, err
}

// given is report.json as it stands.
type given struct {
	text   []byte
	report coordinator.Report
}

// report reads report.json; nil is a problem that was noted.
func (v *verifier) report() *given {
	b, err := v.document(coordinator.ReportFile)
	if err != nil {
		v.problem("%v", err)
		return nil
	}
	g := &given{text: b}
	if err := json.Unmarshal(b, &g.report); err != nil {
		v.problem("read %s: %v", coordinator.ReportFile, err)
		return nil
	}
	if g.report.Version != coordinator.ReportVersion {
		v.problem("%s has version %d, this program knows %d", coordinator.ReportFile, g.report.Version, coordinator.ReportVersion)
		return nil
	}
	return g
}

// compareReport makes the report anew, with the errors that the given one has:
// those are measured later.
func (v *verifier) compareReport(plan *coordinator.Plan, g *given) error {
	var stats []operation.LinearStats
	for _, u := range plan.Units {
		_, layout, err := u.Work()
		if err != nil {
			return err
		}
		for _, it := range layout.Items {
			for _, x := range it.Encoded {
				stats = append(stats, operation.LinearStats{Name: x.Linear.Name})
			}
		}
	}
	want, err := coordinator.NewReport(plan, stats)
	if err != nil {
		return err
	}
	for i := range min(len(want.Linears), len(g.report.Linears)) {
		want.Linears[i].RelativeError = g.report.Linears[i].RelativeError
		want.Linears[i].SNR = g.report.Linears[i].SNR
	}
	text, err := want.Encode()
	if err != nil {
		return err
	}
	a, b := bytes.Split(g.text, []byte("\n")), bytes.Split(text, []byte("\n"))
	for i := range b {
		if i >= len(a) || !bytes.Equal(a[i], b[i]) {
			have := "nothing"
			if i < len(a) {
				have = shorten(a[i])
			}
			v.problem("%s:%d: says %s, and source and recipe make %s", coordinator.ReportFile, i+1, have, shorten(b[i]))
			return nil
		}
	}
	if len(a) != len(b) {
		v.problem("%s:%d: goes on where it should end", coordinator.ReportFile, len(b)+1)
	}
	return nil
}

// shorten quotes the beginning of a line.
func shorten(line []byte) string {
	line = bytes.TrimSpace(line)
	if len(line) > 80 {
		line = append(bytes.Clone(line[:77]), "..."...)
	}
	return fmt.Sprintf("%q", line)
}

// extras compares the files beside the weights that were carried over, such as the
// tokenizer, with the source's.
func (v *verifier) extras(src *shard.Checkpoint) {
	sums := map[string]string{}
	for _, x := range v.result.Manifest.Extras {
		sums[x.Name] = x.SHA256
	}
	for _, x := range src.Manifest.Extras {
		switch sum, ok := sums[x.Name]; {
		case !ok:
			v.problem("file %s of the source is missing", x.Name)
		case sum != x.SHA256:
			v.problem("file %s is not what the source holds", x.Name)
		}
	}
}

// otherSource names a file of the source that is not the one in a result's table
// of contents, as far as names, sizes and headers tell.
func otherSource(m *shard.Manifest, want []coordinator.SourceFile) string {
	for i, f := range m.Files {
		if i >= len(want) || want[i] != (coordinator.SourceFile{Name: f.Name, Size: f.Size, HeaderSHA256: f.HeaderDigest}) {
			return f.Name
		}
	}
	if len(want) > len(m.Files) {
		return want[len(m.Files)].Name
	}
	return ""
}
