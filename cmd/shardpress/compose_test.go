package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeFile = "docker-compose.yml"

// repository is the directory of the repository.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func readRepository(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parseCompose reads a compose file as Docker Compose does, with every profile.
// Whatever is not defined, unknown or malformed is an error.
func parseCompose(t *testing.T, text string, env map[string]string) (*types.Project, error) {
	t.Helper()
	dir := repository(t)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, composeFile), Content: []byte(text)}},
		Environment: env,
	}, loader.WithProfiles([]string{"*"}))
}

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	project, err := parseCompose(t, readRepository(t, composeFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// once are the services that end when they have done their work.
func once(s types.ServiceConfig) bool { return s.Name == "init" }

// ours says that the service runs the program of this repository.
func ours(s types.ServiceConfig) bool { return s.Build != nil }

// released is a tag that names one release: an image with it stays what it was.
var released = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$`)

// composeFaults lists what makes a compose file unfit, beyond what the loader
// refuses: what the deployment promises in docs/deploy.md and SECURITY.md.
func composeFaults(t *testing.T, p *types.Project) []string {
	t.Helper()
	var faults []string
	fault := func(s types.ServiceConfig, format string, args ...any) {
		faults = append(faults, s.Name+": "+fmt.Sprintf(format, args...))
	}
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		switch {
		case s.Image == "":
			fault(s, "no image")
		case ours(s) && strings.HasSuffix(s.Image, ":latest"), !ours(s) && !released.MatchString(s.Image):
			fault(s, "image %s is not pinned to a release", s.Image)
		}
		if !once(s) {
			switch h := s.HealthCheck; {
			case h == nil || h.Disable || len(h.Test) < 2:
				fault(s, "no health check")
			case ours(s) && (h.Test[0] != "CMD" || h.Test[1] != "/shardpress"):
				fault(s, "the image has no shell: its health check can only be the program, not %q", h.Test)
			}
			if s.Restart != "unless-stopped" {
				fault(s, "restart is %q", s.Restart)
			}
		}
		for _, port := range s.Ports {
			if ip := net.ParseIP(port.HostIP); ip == nil || !ip.IsLoopback() {
				fault(s, "port %s is published on %q, not on loopback", port.Published, port.HostIP)
			}
		}
		if !s.ReadOnly {
			fault(s, "root is writable")
		}
		if s.Privileged || len(s.CapAdd) > 0 || !slices.Contains(s.CapDrop, "ALL") {
			fault(s, "has capabilities")
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			fault(s, "may gain privileges")
		}
		if ours(s) && s.User != "" && strings.HasPrefix(s.User, "0") {
			fault(s, "runs as root")
		}
		for dependency, d := range s.DependsOn {
			want := types.ServiceConditionHealthy
			if once(p.Services[dependency]) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			if d.Condition != want {
				fault(s, "depends on %s being %s, not %s", dependency, d.Condition, want)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind && !v.ReadOnly {
				fault(s, "may write to %s of the host", v.Source)
			}
		}
	}
	worker := p.Services["worker"]
	if worker.Deploy == nil || worker.Deploy.Replicas == nil || *worker.Deploy.Replicas < 2 {
		fault(worker, "no replicas")
	}
	grace := commandFlag(worker.Command, "--grace")
	if d, err := time.ParseDuration(grace); err != nil || worker.StopGracePeriod == nil || time.Duration(*worker.StopGracePeriod) < d+10*time.Second {
		fault(worker, "is killed before its grace time of %q has gone by", grace)
	}
	broker := p.Services["nats"]
	synced := false
	for _, c := range broker.Configs {
		synced = synced || syncAlways.MatchString(configText(t, p.Configs[c.Source]))
	}
	if !synced {
		fault(broker, "sync_interval is not always: acknowledged messages can be lost")
	}
	if !slices.ContainsFunc(broker.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Type == types.VolumeTypeVolume && v.Source != "" }) {
		fault(broker, "no named volume")
	}
	return faults
}

// configText is what a config holds.
func configText(t *testing.T, c types.ConfigObjConfig) string {
	t.Helper()
	if c.File == "" {
		return c.Content
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

var syncAlways = regexp.MustCompile(`(?m)^\s*sync_interval:\s*always\s*$`)

// commandFlag is the value of a flag in a command.
func commandFlag(command []string, name string) string {
	for i, word := range command {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
		if word == name && i+1 < len(command) {
			return command[i+1]
		}
	}
	return ""
}

// TestComposeFit loads docker-compose.yml as Docker Compose does and holds it to
// what the deployment promises.
func TestComposeFit(t *testing.T) {
	t.Parallel()
	p := loadCompose(t)
	for _, name := range []string{"nats", "s3", "jaeger", "init", "coordinator", "worker"} {
		if _, ok := p.Services[name]; !ok {
			t.Errorf("no service %s", name)
		}
	}
	for _, f := range composeFaults(t, p) {
		t.Error(f)
	}
	for _, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
	}
}

// TestComposeLint plants faults in docker-compose.yml and wants each of them found.
func TestComposeLint(t *testing.T) {
	t.Parallel()
	good := readRepository(t, composeFile)
	for _, c := range []struct {
		name, old, new string
		want           string // in the loader's error, or in one of our faults
	}{
		{"unknown dependency", "  init: {condition", "  inti: {condition", "undefined service"},
		{"unknown key", "    stop_grace_period: 90s", "    stop_grace_time: 90s", "stop_grace_time"},
		{"unknown volume", "nats-data:/data", "nats-date:/data", "undefined volume"},
		{"unknown config", "- source: nats", "- source: nots", "undefined config"},
		{"bad port", `"127.0.0.1:4222:4222"`, `"127.0.0.1:42222222:4222"`, "42222222"},
		{"floating tag", "nats:2.15.2-alpine", "nats:alpine", "nats: image nats:alpine is not pinned"},
		{"no tag", "versity/versitygw:v1.8.0", "versity/versitygw", "s3: image versity/versitygw is not pinned"},
		{"port for everybody", `"127.0.0.1:7070:7070"`, `"7070:7070"`, "s3: port 7070 is published"},
		{"sync every two minutes", "file: ./deploy/nats/shardpress.conf", "content: 'jetstream { store_dir: /data }'", "nats: sync_interval"},
		{"sync in a comment", "file: ./deploy/nats/shardpress.conf", "content: '# sync_interval: always'", "nats: sync_interval"},
		{"health check with a shell", `test: ["CMD", "/shardpress", "health"]`, `test: ["CMD-SHELL", "wget http://localhost/"]`, "worker: the image has no shell"},
		{"health check gone", `test: ["CMD", "/shardpress", "health"]`, "disable: true", "coordinator: no health check"},
		{"killed while draining", "stop_grace_period: 90s", "stop_grace_period: 10s", "worker: is killed before"},
		{"one worker", "replicas: ${WORKERS:-3}", "replicas: 1", "worker: no replicas"},
		{"writable root", "read_only: true", "read_only: false", "worker: root is writable"},
		{"capabilities", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "nats: has capabilities"},
		{"privileges", "no-new-privileges:true", "no-new-privileges:false", "s3: may gain privileges"},
		{"started too early", "service_completed_successfully", "service_started", "worker: depends on init"},
		{"broker without volume", "      - nats-data:/data\n", "      - /data\n", "nats: no named volume"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("docker-compose.yml does not contain %q", c.old)
			}
			p, err := parseCompose(t, bad, nil)
			said := []string{fmt.Sprint(err)}
			if err == nil {
				said = composeFaults(t, p)
			}
			if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("want %q, got %q", c.want, said)
			}
		})
	}
}

// TestComposeVariables changes what can be set from outside.
func TestComposeVariables(t *testing.T) {
	t.Parallel()
	p, err := parseCompose(t, readRepository(t, composeFile), map[string]string{"WORKERS": "7", "WORKER_MEMORY": "3GiB", "WORKER_LIMIT": "5G"})
	if err != nil {
		t.Fatal(err)
	}
	w := p.Services["worker"]
	if got := *w.Deploy.Replicas; got != 7 {
		t.Errorf("%d workers, want 7", got)
	}
	if got := commandFlag(w.Command, "--memory"); got != "3GiB" {
		t.Errorf("--memory=%s, want 3GiB", got)
	}
	if got := int64(w.Deploy.Resources.Limits.MemoryBytes); got != 5<<30 {
		t.Errorf("limit of %d bytes, want %d", got, int64(5)<<30)
	}
	// Everybody has the secrets of its own role, and no others.
	for name, others := range map[string][]string{
		"worker": {"ROOT_SECRET_ACCESS_KEY", "COORDINATOR_PASSWORD", "coordinators-on"}, "coordinator": {"ROOT_SECRET_ACCESS_KEY", "WORKERS_PASSWORD", "workers-on"},
		"nats": {"AWS_SECRET_ACCESS_KEY", "objects-on"}, "s3": {"NATS_URL", "-on-loopback@"}, "jaeger": {"SECRET", "PASSWORD", "on-loopback"},
	} {
		for variable, value := range p.Services[name].Environment {
			if value == nil || slices.ContainsFunc(others, func(o string) bool { return strings.Contains(variable+"="+*value, o) }) {
				t.Errorf("%s is given %s", name, variable)
			}
		}
	}
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "NATS_URL", "SHARDPRESS_STORE"} {
		if v := w.Environment[name]; v == nil || *v == "" || strings.Contains(*v, "$") {
			t.Errorf("%s is not resolved", name)
		}
	}
}
