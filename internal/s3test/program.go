package s3test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
)

// binaryEnv names a versitygw that is there already.
const binaryEnv = "SHARDPRESS_VERSITYGW"

const gateway = "github.com/versity/versitygw"

// program gives the path of a versitygw of the pinned version, and builds it if
// this user has none yet.
func program() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", binaryEnv, err)
		}
		return path, nil
	}
	module, err := toolModule()
	if err != nil {
		return "", err
	}
	version, err := pinned(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "shardpress")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	name := fmt.Sprintf("versitygw-%s-%s-%s-%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	path := filepath.Join(cache, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// Test programs of several packages run at once: one builds, the others wait.
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, build(module, path)
}

// build compiles the program of the tool module.
func build(module, path string) error {
	tmp := path + ".tmp" // ours, since we hold the lock
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp, gateway+"/cmd/versitygw")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build versitygw (set %s to name one that is built already): %w\n%s", binaryEnv, err, out)
	}
	return os.Rename(tmp, path)
}

// toolModule finds the folder of tools/versitygw/go.mod, from the folder of a test
// in this module.
func toolModule() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		module := filepath.Join(dir, "tools", "versitygw")
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find tools/versitygw: run the tests inside of the repository, or set " + binaryEnv)
		}
		dir = parent
	}
}

// pinned reads the gateway's version.
func pinned(gomod string) (string, error) {
	text, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(gateway) + ` (v[0-9A-Za-z.+-]+)`).FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%s names no version of %s", gomod, gateway)
	}
	return string(m[1]), nil
}
