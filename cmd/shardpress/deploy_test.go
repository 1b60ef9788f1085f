package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

// deployFiles lists the files below deploy whose name ends so, as paths from the
// repository's directory.
func deployFiles(t *testing.T, suffix string) []string {
	t.Helper()
	root := repository(t)
	var all []string
	err := filepath.WalkDir(filepath.Join(root, "deploy"), func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(name, suffix) {
			name, err = filepath.Rel(root, name)
			all = append(all, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no *%s below deploy", suffix)
	}
	return all
}

// unit is a systemd unit: section, then key, then its values in order.
type unit map[string]map[string][]string

var unitLine = regexp.MustCompile(`^([A-Za-z]+)=(.*)$`)

func parseUnit(text string) (unit, error) {
	u := unit{}
	section := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch m := unitLine.FindStringSubmatch(line); {
		case line == "" || line[0] == '#':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
			if u[section] != nil {
				return nil, fmt.Errorf("line %d: section %s again", i+1, section)
			}
			u[section] = map[string][]string{}
		case m == nil || section == "" || strings.HasSuffix(line, `\`):
			return nil, fmt.Errorf("line %d: %q", i+1, line)
		default:
			u[section][m[1]] = append(u[section][m[1]], m[2])
		}
	}
	return u, nil
}

// one is the only value of a key, "" if there is none or are several.
func (u unit) one(section, key string) string {
	if v := u[section][key]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// TestComposeSystemd holds the units to what SECURITY.md and docs/deploy.md say of
// them.
func TestComposeSystemd(t *testing.T) {
	t.Parallel()
	hardened := map[string]string{
		"DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict", "ProtectHome": "yes",
		"PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectKernelTunables": "yes", "ProtectControlGroups": "yes",
		"RestrictNamespaces": "yes", "RestrictSUIDSGID": "yes", "LockPersonality": "yes", "MemoryDenyWriteExecute": "yes",
		"SystemCallArchitectures": "native", "UMask": "0077", "Type": "exec", "Restart": "always",
	}
	for _, name := range deployFiles(t, ".service") {
		u, err := parseUnit(readRepository(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for key, want := range hardened {
			if v, ok := u["Service"][key]; !ok || len(v) != 1 || v[0] != want {
				t.Errorf("%s: %s=%q, want %q", name, key, v, want)
			}
		}
		start := strings.Fields(u.one("Service", "ExecStart"))
		if len(start) < 2 || start[0] != "/usr/local/bin/shardpress" {
			t.Errorf("%s: ExecStart=%q", name, start)
			continue
		}
		if want := "shardpress-" + start[1] + ".service"; path.Base(name) != want {
			t.Errorf("%s runs %s", name, start[1])
		}
		stop, err := time.ParseDuration(strings.NewReplacer("min", "m").Replace(u.one("Service", "TimeoutStopSec")))
		if err != nil {
			t.Errorf("%s: TimeoutStopSec: %v", name, err)
		}
		if grace := commandFlag(start, "--grace"); grace != "" {
			if d, err := time.ParseDuration(grace); err != nil || stop < d+10*time.Second {
				t.Errorf("%s is killed after %s, before its grace time of %s has gone by", name, stop, grace)
			}
		}
		// Whatever a command line takes from systemd must be made by it.
		for variable, key := range map[string]string{"CREDENTIALS_DIRECTORY": "LoadCredential", "CACHE_DIRECTORY": "CacheDirectory", "STATE_DIRECTORY": "StateDirectory"} {
			if strings.Contains(u.one("Service", "ExecStart"), "${"+variable+"}") != (len(u["Service"][key]) > 0) {
				t.Errorf("%s: %s and ${%s} do not belong together", name, key, variable)
			}
		}
		if u.one("Install", "WantedBy") != "multi-user.target" {
			t.Errorf("%s is started by nothing", name)
		}
	}
}

// policy is a policy in the language of AWS IAM, as far as ours go.
type policy struct {
	Version   string
	Statement []struct {
		Sid, Effect      string
		Action, Resource oneOrMore
		Condition        map[string]map[string]oneOrMore
	}
}

// oneOrMore is a string or a list of them.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		*o = oneOrMore{s}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// like matches as IAM does: a star stands for any characters, slashes too.
func like(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`^(?s:` + strings.Join(parts, ".*") + `)$`).MatchString(s)
}

func (p *policy) allows(action, resource string) bool {
	for _, s := range p.Statement {
		match := func(patterns []string, what string) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool { return like(pattern, what) })
		}
		if s.Effect == "Allow" && match(s.Action, action) && match(s.Resource, resource) {
			return true
		}
	}
	return false
}

// TestComposePolicies holds deploy/s3 to the keys that the program makes: every role
// can do its work, and nothing of the others'.
func TestComposePolicies(t *testing.T) {
	t.Parallel()
	const run, attempt = "01JD0000000000000000000000", "01JD0000000000000000000001"
	id := task.ID{1, 2, 3}
	keys := map[string]string{
		"spec":    task.SpecKey(id),
		"result":  task.ResultKey(id),
		"output":  task.OutputKey(id, attempt, "model-00001.safetensors"),
		"attempt": task.AttemptKey(run, id, attempt),
		"failure": task.FailureKey(run, id, attempt),
		"audit":   task.AuditKey(run, id),
		"submit":  "runs/" + run + "/submit.json",
		"cancel":  "runs/" + run + "/cancel",
		"plan":    "runs/" + run + "/plan.json",
		"state":   "runs/" + run + "/state.json",
		"open":    "open/" + run,
		"source":  "sources/ab/extents/model.safetensors-0-1.bin",
		"damage":  "sources/ab/damaged/model.safetensors-0-1",
		"probe":   "doctor-probe/ab/object",
	}
	all := "spec result output attempt failure audit submit cancel plan state open source damage probe"
	roles := map[string]map[string]string{
		"coordinator": {"s3:GetObject": all, "s3:PutObject": all, "s3:DeleteObject": all, "s3:AbortMultipartUpload": all},
		"worker": {"s3:GetObject": all, "s3:PutObject": "result output attempt failure audit damage probe", "s3:DeleteObject": "output probe",
			"s3:AbortMultipartUpload": "output probe"},
		"client": {"s3:GetObject": all, "s3:PutObject": "submit cancel open source damage probe", "s3:DeleteObject": "damage probe",
			"s3:AbortMultipartUpload": "source damage probe"},
		"reader": {"s3:GetObject": "attempt failure audit submit cancel plan state"},
	}
	const bucket = "arn:aws:s3:::BUCKET"
	for role, may := range roles {
		var p policy
		d := json.NewDecoder(strings.NewReader(readRepository(t, "deploy/s3/"+role+".json")))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			t.Errorf("%s: %v", role, err)
			continue
		}
		if p.Version != "2012-10-17" {
			t.Errorf("%s: version %q", role, p.Version)
		}
		for _, action := range []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"} {
			want := strings.Fields(may[action])
			for name, key := range keys {
				if got := p.allows(action, bucket+"/PREFIX/"+key); got != slices.Contains(want, name) {
					t.Errorf("%s: %s of %s is %v", role, action, key, got)
				}
				if p.allows(action, bucket+"/OTHER/"+key) || p.allows(action, bucket+"/"+key) {
					t.Errorf("%s: %s of %s outside of the prefix", role, action, key)
				}
			}
		}
		if !p.allows("s3:ListBucket", bucket) {
			t.Errorf("%s cannot tell absent from forbidden", role)
		}
		for _, action := range []string{"s3:CreateBucket", "s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration"} {
			if p.allows(action, bucket) {
				t.Errorf("%s: %s", role, action)
			}
		}
	}
}
