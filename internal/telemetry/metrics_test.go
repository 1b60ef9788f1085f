package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// scraped starts telemetry that Prometheus may ask.
func scraped(t *testing.T) *Telemetry {
	t.Helper()
	tel, err := Start(t.Context(), Options{
		Service: "shardpress-test", Version: "v0", MetricsListen: "127.0.0.1:0", Stderr: t.Output(), Getenv: func(string) string { return "" },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tel.Shutdown(context.Background()) })
	return tel
}

func ask(t *testing.T, tel *Telemetry, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tel.MetricsAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func scrape(t *testing.T, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	code, body := ask(t, tel, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("metrics: %d: %s", code, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, body)
	}
	return families
}

// value is the one series of a family that has these labels.
func value(t *testing.T, f *dto.MetricFamily, labels string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		slices.Sort(have)
		if strings.Join(have, ",") == labels {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Errorf("%s has no series %s", f.GetName(), labels)
	return 0
}

// busy makes something happen of everything that is measured.
func busy(t *testing.T, tel *Telemetry) {
	t.Helper()
	ctx := t.Context()
	r := tel.Run("R")
	r.Began(ctx, 3, 1)
	r.Counted(func() (string, map[string]int64) { return "running", map[string]int64{"queued": 1, "placed": 1} })
	for n, reason := range []string{ReasonFirst, ReasonAgain, ReasonTwin, ReasonAudit} {
		_, end := r.Published(ctx, message("R", byte(n)), reason)
		end(true, nil)
	}
	_, end := r.Published(ctx, message("R", 9), ReasonFirst)
	end(false, errors.New("refused"))
	_, end = r.Published(ctx, message("R", 9), ReasonFirst)
	end(false, nil) // it is outstanding
	r.Repaired(ctx)
	r.Retried(ctx, task.Transient)
	r.Audited(ctx, AuditEqual)
	r.Audited(ctx, AuditUnequal)
	w, err := tel.Worker("w1", 1<<30, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, first := w.Attempt(ctx, message("R", 1), 1)
	_, second := w.Attempt(ctx, message("R", 2), 3)
	first(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1000})
	second(AttemptEnd{Attempt: "A", Outcome: task.AttemptFailed, Err: errors.New("broken"), Bytes: 10})
	w.Attempt(ctx, message("R", 3), 1) // goes on
	w.Heard(&task.WorkerInfo{Bytes: 1000, Tasks: []task.WorkerTask{{Bytes: 4000}}})
	w.Heard(&task.WorkerInfo{Bytes: 1010}) // it has failed
	b := tel.Bucket(objstore.NewMem())
	if _, err := b.Put(ctx, "k", bytes.NewReader([]byte("12345")), 5, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := objstore.ReadAll(ctx, b, "k", 10); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stat(ctx, "missing"); !errors.Is(err, objstore.ErrNotExist) {
		t.Fatal(err)
	}
	if err := tel.ObserveBacklog(func(context.Context) ([]Cell, error) {
		return []Cell{{Class: "f32@1", Memory: "m64", Waiting: 5, InFlight: 2, Oldest: 90 * time.Second, Workers: 3}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	tel.Run("S").Finished(ctx, "failed", errors.New("x"))
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	busy(t, tel)
	have := scrape(t, tel)
	for _, c := range []struct {
		name, labels string
		want         float64
	}{
		{"shardpress_runs", "state=running", 1},
		{"shardpress_runs_finished_total", "state=failed", 1},
		{"shardpress_tasks", "state=queued", 1},
		{"shardpress_tasks_published_total", "reason=first", 1}, // neither the refused one nor the one that is outstanding
		{"shardpress_tasks_published_total", "reason=twin", 1},
		{"shardpress_tasks_reused_total", "", 1},
		{"shardpress_tasks_repaired_total", "", 1},
		{"shardpress_tasks_retried_total", "kind=transient", 1},
		{"shardpress_audits_total", "result=unequal", 1},
		{"shardpress_attempts_total", "op=encode,outcome=done", 1},
		{"shardpress_attempts_total", "op=encode,outcome=failed", 1},
		{"shardpress_redeliveries_total", "op=encode", 1},
		{"shardpress_task_duration_seconds", "op=encode", 1},
		{"shardpress_worker_tasks_total", "worker=w1", 1},
		{"shardpress_worker_source_bytes_total", "worker=w1", 5000}, // more than of those that ended: one goes on
		{"shardpress_worker_running", "worker=w1", 1},
		{"shardpress_worker_slots", "worker=w1", 2},
		{"shardpress_worker_memory_used_bytes", "worker=w1", 100 << 20},
		{"shardpress_worker_memory_budget_bytes", "worker=w1", 1 << 30},
		{"shardpress_queue_waiting", "class=f32@1,memory=m64,rank=bulk", 5},
		{"shardpress_queue_in_flight", "class=f32@1,memory=m64,rank=bulk", 2},
		{"shardpress_queue_oldest_age_seconds", "class=f32@1,memory=m64,rank=bulk", 90},
		{"shardpress_queue_workers", "class=f32@1,memory=m64,rank=bulk", 3},
		{"shardpress_store_requests_total", "operation=stat,outcome=missing", 1},
		{"shardpress_store_transferred_bytes_total", "operation=put", 5},
		{"shardpress_store_transferred_bytes_total", "operation=get", 5},
		{"shardpress_store_request_duration_seconds", "operation=get", 1},
	} {
		if got := value(t, have[c.name], c.labels); got != c.want {
			t.Errorf("%s{%s} is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	if have["shardpress_process_memory_bytes"].GetMetric()[0].GetGauge().GetValue() < 1<<20 {
		t.Error("the process has no memory")
	}
	if s := have["shardpress_process_start_time_seconds"].GetMetric()[0].GetGauge().GetValue(); time.Since(time.Unix(int64(s), 0)) > time.Hour {
		t.Errorf("the process started at %v", s)
	}
	// What a label can say is bounded: no name of a task or run is among them.
	for _, f := range have {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == "R" || strings.HasPrefix(l.GetValue(), "010000") {
					t.Errorf("%s is labelled %s=%s", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	tel.Run("R").Finished(t.Context(), "done", nil)
	if again := scrape(t, tel); again["shardpress_tasks"] != nil || again["shardpress_runs"] != nil {
		t.Error("a run that is over is still counted")
	}
}

func repository(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDocumentedMetrics holds docs/observability.md, the dashboard and the alert
// rules to what there is, names and labels.
func TestDocumentedMetrics(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	busy(t, tel)
	labels := map[string][]string{} // of each metric
	for name, f := range scrape(t, tel) {
		if !strings.HasPrefix(name, "shardpress_") {
			if name != "target_info" {
				t.Errorf("metric %s is not of this program", name)
			}
			continue
		}
		labels[name] = nil
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(labels[name], l.GetName()) {
					labels[name] = append(labels[name], l.GetName())
				}
			}
		}
		slices.Sort(labels[name])
	}
	doc := repository(t, "docs/observability.md")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(shardpress_[a-z_]+)` \\|([^|]*)\\|([^|]*)\\|").FindAllStringSubmatch(doc, -1) {
		documented[m[1]] = true
		have, ok := labels[m[1]]
		if !ok {
			t.Errorf("%s is documented and does not exist", m[1])
			continue
		}
		want := regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[3], -1)
		var said []string
		for _, w := range want {
			said = append(said, w[1])
		}
		slices.Sort(said)
		if !slices.Equal(said, have) {
			t.Errorf("%s has the labels %v, documented are %v", m[1], have, said)
		}
	}
	for name := range labels {
		if !documented[name] {
			t.Errorf("%s is not documented", name)
		}
	}
	known := func(where, expr string) {
		t.Helper()
		grouped := []string{"le", "instance", "job"}
		for _, m := range regexp.MustCompile(`(shardpress_[a-z_]+)(\{[^}]*\})?`).FindAllStringSubmatch(expr, -1) {
			name := m[1]
			have, ok := labels[name]
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, cut := strings.CutSuffix(name, suffix); cut && !ok {
					have, ok = labels[base]
				}
			}
			if !ok {
				t.Errorf("%s uses %s, which does not exist", where, name)
			}
			grouped = append(grouped, have...)
			for _, l := range regexp.MustCompile(`([a-z_]+)\s*[=!]~?"`).FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(append(have, "job", "instance"), l[1]) {
					t.Errorf("%s asks %s for the label %s, which it has not", where, name, l[1])
				}
			}
		}
		for _, m := range regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
			for l := range strings.SplitSeq(m[1], ", ") {
				if !slices.Contains(grouped, l) {
					t.Errorf("%s groups by %s, which nothing in it has", where, l)
				}
			}
		}
	}
	var board struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(repository(t, "deploy/grafana/shardpress.json")), &board); err != nil {
		t.Fatal(err)
	}
	exprs := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			exprs++
			known("panel "+p.Title, target.Expr)
		}
	}
	if exprs < 15 {
		t.Errorf("the dashboard has %d expressions", exprs)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(repository(t, "deploy/prometheus/rules.yml")), &rules, yaml.DisallowUnknownField()); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			known("alert "+r.Alert, r.Expr)
			for k, v := range r.Annotations {
				known("annotation of "+r.Alert, v)
				if v == "" || k == "" {
					t.Errorf("alert %s has an empty annotation", r.Alert)
				}
			}
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("alert %s does not say how bad it is, and what to do", r.Alert)
			}
			if !strings.Contains(doc, "`"+r.Alert+"`") {
				t.Errorf("alert %s is not in docs/observability.md", r.Alert)
			}
		}
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(repository(t, "deploy/prometheus/prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	if files := fmt.Sprint(config["rule_files"]); !strings.Contains(files, "rules.yml") {
		t.Errorf("prometheus.yml reads the rules %s", files)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	if code, body := ask(t, tel, "/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("health: %d %q", code, body)
	}
	if code, _ := ask(t, tel, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("something else is served: %d", code)
	}
	taken := Options{MetricsListen: tel.MetricsAddr(), Getenv: func(string) string { return "" }, Stderr: t.Output()}
	if _, err := Start(t.Context(), taken); err == nil || !strings.Contains(err.Error(), tel.MetricsAddr()) {
		t.Errorf("an address that is taken: %v", err)
	}
	tel.Shutdown(t.Context())
	tel.Shutdown(t.Context())
}

// TestBacklogThatDoesNotAnswer leaves the other metrics alone, and is not asked by
// everybody who asks for metrics.
func TestBacklogThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	asked := 0
	if err := tel.ObserveBacklog(func(context.Context) ([]Cell, error) {
		asked++
		return nil, errors.New("no broker")
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if have := scrape(t, tel); have["shardpress_queue_waiting"] != nil || have["shardpress_build_info"] == nil {
			t.Error("metrics of a process without a broker")
		}
	}
	if asked == 0 || asked > 2 {
		t.Errorf("the broker was asked %d times for 3 scrapes", asked)
	}
}
