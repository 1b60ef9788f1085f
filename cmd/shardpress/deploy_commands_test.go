package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandLine is a call of our program that something below deploy, or a document,
// would make.
type commandLine struct {
	where string
	args  []string
	env   []string // names of variables that it is given
}

// placeholder stands for what systemd, Kubernetes or a shell put in.
var placeholder = regexp.MustCompile(`\$\([A-Z_]+\)|\$\{[A-Z_]+\}|\$[A-Z_]+`)

func expanded(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = placeholder.ReplaceAllString(a, "/some/value")
	}
	return out
}

// dockerfile reads the instructions of a Dockerfile, of the last stage.
func dockerfile(text string) map[string]string {
	text = strings.ReplaceAll(text, "\\\n", " ")
	stage := map[string]string{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name == "" || name[0] == '#':
		case name == "FROM":
			stage = map[string]string{name: rest}
		case stage[name] != "":
			stage[name] += "\n" + rest
		default:
			stage[name] = rest
		}
	}
	return stage
}

// shellBlock matches what a document tells to type.
var shellBlock = regexp.MustCompile("(?ms)^[ ]*```sh\n(.*?)^[ ]*```")

// commandLines gathers every call of our program.
func commandLines(t *testing.T) []commandLine {
	t.Helper()
	var all []commandLine
	for _, s := range loadCompose(t).Services {
		if !ours(s) {
			continue
		}
		var env []string
		for name := range s.Environment {
			env = append(env, name)
		}
		slices.Sort(env)
		if len(s.Entrypoint) > 0 {
			t.Errorf("%s: another entry point: %q", s.Name, s.Entrypoint)
		}
		all = append(all, commandLine{composeFile + " " + s.Name, s.Command, env})
		if s.HealthCheck != nil {
			all = append(all, commandLine{composeFile + " " + s.Name + ", health check", s.HealthCheck.Test[2:], nil})
		}
	}
	for name, w := range readManifests(t).workloads {
		for _, c := range slices.Concat(w.Spec.Template.Spec.InitContainers, w.Spec.Template.Spec.Containers) {
			if c.Image == "shardpress" {
				all = append(all, commandLine{"deploy/kubernetes " + name + "/" + c.Name, c.Args, environmentOf(readRepository(t, "deploy/kubernetes/base/shardpress.env"))})
			}
		}
	}
	for _, name := range deployFiles(t, ".service") {
		u, err := parseUnit(readRepository(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, key := range []string{"ExecStartPre", "ExecStart", "ExecReload", "ExecStop"} {
			for _, line := range u["Service"][key] {
				words := strings.Fields(line)
				if words[0] != "/usr/local/bin/shardpress" {
					t.Errorf("%s: %s runs %s", name, key, words[0])
				}
				all = append(all, commandLine{name + " " + key, words[1:], nil})
			}
		}
	}
	for _, name := range deployFiles(t, ".env") {
		if strings.HasPrefix(name, "deploy/systemd/") {
			all = append(all, commandLine{where: name, args: []string{"worker"}, env: environmentOf(readRepository(t, name))})
		}
	}
	all = append(all, commandLine{"deploy/compose/client.sh", []string{"runs"}, environmentOf(strings.ReplaceAll(
		strings.ReplaceAll(readRepository(t, "deploy/compose/client.sh"), "export ", ""), " ", "\n"))})
	documents := append(deployFiles(t, ".md"), "docs/deploy.md", "docs/operations.md", "docs/observability.md", "SECURITY.md", "README.md")
	for _, name := range documents {
		for _, block := range shellBlock.FindAllStringSubmatch(readRepository(t, name), -1) {
			for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
				words := strings.Fields(line)
				if len(words) > 1 && (words[0] == "shardpress" || words[0] == "bin/shardpress") {
					all = append(all, commandLine{name, words[1:], nil})
				}
			}
		}
	}
	return all
}

// environmentOf lists the variables that a file of them sets.
func environmentOf(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^([A-Z][A-Z0-9_]*)=`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// runnable says why the program would refuse a command line, without running it.
func runnable(args []string) error {
	root := newRoot()
	c, rest, err := root.Find(expanded(args))
	switch {
	case err != nil:
		return err
	case c == root && len(args) > 0 && !strings.HasPrefix(args[0], "-"):
		return fmt.Errorf("no command %s", args[0])
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if c.Args == nil {
		return nil
	}
	return c.Args(c, c.Flags().Args())
}

// TestComposeCommands holds every command line in compose, Dockerfile, Kubernetes,
// systemd and the documents to the commands and flags that there are.
func TestComposeCommands(t *testing.T) {
	t.Parallel()
	lines := commandLines(t)
	seen := map[string]bool{}
	for _, l := range lines {
		if err := runnable(l.args); err != nil {
			t.Errorf("%s: shardpress %s: %v", l.where, strings.Join(l.args, " "), err)
		}
		if len(l.args) > 0 {
			seen[l.args[0]] = true
		}
	}
	for _, want := range []string{"broker", "coordinator", "worker", "doctor", "compress", "runs", "status", "cancel", "logs", "gc"} {
		if !seen[want] {
			t.Errorf("nothing says how to run %s", want)
		}
	}
	for _, bad := range [][]string{{"coordinate"}, {"worker", "--memry=1GiB"}, {"worker", "--slots", "many"}, {"doctor", "here"}} {
		if runnable(bad) == nil {
			t.Errorf("shardpress %s passes", strings.Join(bad, " "))
		}
	}
	image := dockerfile(readRepository(t, "deploy/Dockerfile"))
	if image["FROM"] != "scratch" || image["ENTRYPOINT"] != `["/shardpress"]` || strings.HasPrefix(image["USER"], "0") || image["USER"] == "" {
		t.Errorf("the image: %q", image)
	}
	if m := regexp.MustCompile(`golang:(\d+\.\d+\.\d+)\b`).FindStringSubmatch(readRepository(t, "deploy/Dockerfile")); m == nil {
		t.Error("the compiler is not pinned")
	}
}

// variable is a name of the environment in a text of help.
var variable = regexp.MustCompile(`\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b`)

// known are the variables of which the program says, in one of its helps, that it
// reads them.
func knownVariables() map[string]bool {
	names := map[string]bool{}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		text := c.Long
		c.Flags().VisitAll(func(f *pflag.Flag) { text += "\n" + f.Usage })
		for _, name := range variable.FindAllString(text, -1) {
			names[name] = true
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	return names
}

// TestComposeEnvironment wants every variable that a process of ours is given to be
// one that it says it reads.
func TestComposeEnvironment(t *testing.T) {
	t.Parallel()
	known := knownVariables()
	given := 0
	for _, l := range commandLines(t) {
		for _, name := range l.env {
			given++
			if !known[name] {
				t.Errorf("%s: nothing says that shardpress reads %s", l.where, name)
			}
		}
	}
	if given < 10 {
		t.Errorf("%d variables: are they found at all?", given)
	}
	// What the guide says of variables is true as well.
	_, table, _ := strings.Cut(readRepository(t, "docs/deploy.md"), "\n## Environment\n")
	named := variable.FindAllString(table, -1)
	if len(named) < 10 {
		t.Errorf("docs/deploy.md names %d variables", len(named))
	}
	for _, name := range named {
		if !known[name] {
			t.Errorf("docs/deploy.md: nothing says that shardpress reads %s", name)
		}
	}
}
