package imports

import "strings"

// modulePath is the path of the module that the rules are about.
const modulePath = "github.com/shardpress/shardpress"

// layer is one row of the table: what the packages matched by Packages may import of ours. Paths are relative to the module;
// one that ends in /... stands for the package and everything below it.
type layer struct {
	Packages string
	May      []string
	Why      string
}

// layers is the table of the design, lowest first. The first row that matches a package counts, so exceptions stand above the rule
// they are from. A package may always import what lies below itself.
func layers() []layer {
	methods := []string{"compress", "internal/tensor"}
	return []layer{
		{"internal/tensor/...", nil, "numbers and their packing stand at the bottom"},
		{"internal/story/...", nil, "the story grammar makes text, and knows of nothing else"},
		{"internal/tokenizer/...", nil, "a tokenizer turns text into numbers, and knows of nothing else"},
		{"internal/imports/...", nil, "the rules depend on nothing that they judge"},
		{"internal/faultproxy/...", nil, "a proxy carries bytes for tests, whatever they mean"},
		{"internal/s3test/...", []string{"objstore/..."}, "a server for tests knows the store that speaks to it"},
		{"objstore/...", []string{"objstore/..."}, "stores move bytes, and do not know what the bytes mean"},
		{"compress", []string{"internal/tensor"}, "operations are arithmetic; what they mean for tasks and files is decided above"},
		{"internal/linalg/...", []string{"internal/tensor"}, "factorisations stand on products of matrices"},
		{"compress/lowrank/...", append(methods, "compress/methodtest", "internal/linalg"), "low rank is arithmetic over factorisations"},
		{"compress/recipe/...", append(methods, "compress/..."), "a recipe knows the methods, and nothing that runs them"},
		{"compress/...", append(methods, "compress/methodtest"), "a method is arithmetic only, and does not know the other methods"},
		{"shard/...", []string{"shard/...", "internal/tensor", "objstore/..."}, "checkpoints are read and written without knowing what is done to them"},
		{"internal/task/...", nil, "wire types are plain data"},
		{"internal/machine/...", nil, "what a machine has is asked of its system, whatever it is for"},
		{"internal/source/...", []string{"internal/task", "shard/...", "objstore/..."}, "a source is opened without knowing what is done to it"},
		{"internal/operation/...", []string{"internal/task", "compress/...", "shard/...", "objstore/...", "internal/tensor"},
			"an operation is a pure function of its inputs, and does not know who runs it"},
		{"internal/model/...", []string{"internal/tensor", "shard/...", "internal/tokenizer", "objstore/..."}, "a forward pass needs weights and text, and no fleet"},
		{"internal/eval/...", []string{"internal/tensor", "shard/...", "internal/tokenizer", "internal/model", "objstore/..."},
			"an evaluation needs a model and text, and no fleet"},
		{"internal/queue/...", []string{"internal/task", "internal/redact"}, "the queue moves tasks, and does not know what they do"},
		{"internal/redact/...", nil, "whoever tells people something must be able to leave credentials out"},
		{"internal/telemetry/...", []string{"internal/task", "internal/redact", "objstore"}, "telemetry looks on; those whom it watches know only interfaces of their own"},
		{"worker/...", below("worker/..."), "a worker pulls and handles tasks; the plan is the coordinator's"},
		{"coordinator/...", below("coordinator/..."), "a coordinator plans and watches; it runs no task itself"},
		{"internal/verify/...", []string{"compress/...", "shard/...", "objstore/...", "internal/tensor", "internal/task", "internal/operation", "coordinator"},
			"a result is verified from its files and its source, without a fleet"},
		{"internal/observe/...", below("worker", "coordinator", "internal/telemetry"), "telemetry and those whom it watches meet here, and know nothing of each other"},
		{"internal/local/...", below("worker/...", "coordinator/...", "internal/verify", "internal/telemetry", "internal/observe"), "one process holds a whole fleet here; it adds no decisions of its own"},
		{"internal/fleet/...", below("coordinator"), "a client asks for runs and fetches what they make; it plans nothing by itself, and does no task"},
		{"internal/verify/...", below("internal/verify/...", "coordinator/..."), "a result is checked by planning it again"},
		{"cmd/...", []string{"..."}, "a command puts everything together"},
		{"tools/...", below("internal/story", "internal/local", "internal/verify", "testdata/..."), "a tool is a program of its own, beside the command"},
	}
}

// below is what stands under workers and coordinators.
func below(more ...string) []string {
	return append([]string{"internal/tensor", "objstore/...", "compress/...", "shard/...", "internal/model", "internal/eval", "internal/tokenizer",
		"internal/queue", "internal/task", "internal/source", "internal/operation", "internal/redact"}, more...)
}

// confinement keeps modules of other people, and packages of the standard library, where they belong.
type confinement struct {
	Imports []string // import paths, full; /... as above
	Only    []string // only these packages may import them; nil: none but Never applies
	Never   []string // these may not
	Except  []string // out of Never
	Tests   bool     // the rule holds for test files too
	Why     string
}

func confinements() []confinement {
	arithmetic := []string{"compress/..."}
	return []confinement{
		{Imports: []string{"github.com/nats-io/..."}, Only: []string{"internal/queue/..."}, Tests: true,
			Why: "the queue is the one place that knows NATS"},
		{Imports: []string{"github.com/minio/minio-go/...", "github.com/minio/minio-go/v7/...", "github.com/aws/aws-sdk-go/...", "github.com/aws/aws-sdk-go-v2/..."},
			Only: []string{"objstore/s3/..."}, Tests: true, Why: "the client of S3 stays behind objstore.Bucket"},
		{Imports: []string{"go.opentelemetry.io/otel/sdk/...", "go.opentelemetry.io/otel/sdk/metric/...", "go.opentelemetry.io/otel/exporters/...", "github.com/prometheus/..."},
			Only: []string{"internal/telemetry/..."}, Tests: true, Why: "what leaves the process, and how, is decided in one place"},
		{Imports: []string{modulePath + "/cmd/..."}, Only: []string{"cmd/..."}, Tests: true, Why: "commands hold flags and printing, nothing to build on"},
		{Imports: []string{"os/...", "io/fs", "io/ioutil", "path/filepath", "syscall", "embed/..."}, Never: []string{"compress", "compress/quantize/...", "compress/prune/...", "compress/lowrank/...", "compress/distill/..."},
			Why: "operations do no I/O and do not look at their environment: their result depends on their inputs alone"},
		{Imports: []string{"os/...", "syscall"}, Never: []string{"compress/recipe/..."},
			Why: "a recipe is parsed from bytes, so that it means the same on every machine"},
		{Imports: []string{"net/..."}, Never: arithmetic, Why: "operations do not use the network: their result depends on their inputs alone"},
		{Imports: []string{"math/rand", "math/rand/v2", "crypto/rand", "hash/maphash"}, Never: arithmetic, Except: []string{"compress/methodtest"},
			Why: "seeds come from the recipe and the name of the tensor, or two workers make different bytes"},
		{Imports: []string{"gonum.org/v1/gonum/..."}, Never: append([]string{"internal/tensor/..."}, arithmetic...),
			Why: "its sums depend on the machine, and these packages make output bytes"},
	}
}

// forbiddenCall is a function of the standard library that some packages must not mention although they may import its package.
type forbiddenCall struct {
	Package string
	Names   []string
	Never   []string
	Why     string
}

func forbiddenCalls() []forbiddenCall {
	return []forbiddenCall{{
		Package: "time",
		Names:   []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		Never:   []string{"compress/..."},
		Why:     "operations do not read the clock: their result depends on their inputs alone",
	}}
}

// exportedPackages are the ones meant for other people: no type of an internal package may show in their exported API.
func exportedPackages() []string { return []string{"compress/...", "shard/...", "objstore/..."} }

// matches says whether the path is the pattern, or for a pattern ending in /... the path before it or anything below.
func matches(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if base, found := strings.CutSuffix(pattern, "/..."); found {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return path == pattern
}

func matchesAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}
