package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			info, _ := debug.ReadBuildInfo()
			version, revision := "(unknown)", ""
			if info != nil {
				version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = " revision " + s.Value
					}
				}
			}
			salt, err := salt()
			if err != nil {
				return err
			}
			if salt == "" {
				salt = "none (release)"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "shardpress %s%s\n%s %s/%s\ntask salt %s\n", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH, salt)
			return err
		},
	}
}

var release = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`)
var pseudo = regexp.MustCompile(`\d{14}-[0-9a-f]{12}`)

// salt separates the results of development builds from those of releases and of
// each other: their operations may have changed without a new version yet. A build
// of a clean revision is known by it, any other one by the program's own bytes.
func salt() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if ok && release.MatchString(info.Main.Version) && !pseudo.MatchString(info.Main.Version) {
		return "", nil
	}
	revision, modified := "", true
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value != "false"
			}
		}
	}
	if revision != "" && !modified {
		return "rev-" + revision[:min(len(revision), 12)], nil
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	return "bin-" + hex.EncodeToString(h.Sum(nil)[:6]), nil
}
