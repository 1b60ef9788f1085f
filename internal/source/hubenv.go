package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shardpress/shardpress/objstore/hub"
)

// maxToken bounds the file of a token.
const maxToken = 4096

// HubFromEnv says how to reach the hub, as the hub's own programs are told: HF_ENDPOINT; a token in HF_TOKEN or HUGGING_FACE_HUB_TOKEN, else in
// the file HF_TOKEN_PATH or HF_HOME/token, which lies below ~/.cache/huggingface by default; no token for HF_HUB_DISABLE_IMPLICIT_TOKEN.
func HubFromEnv(getenv func(string) string) (hub.Options, error) {
	o := hub.Options{Endpoint: getenv("HF_ENDPOINT")}
	switch strings.ToUpper(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
	case "1", "ON", "YES", "TRUE":
		return o, nil
	}
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if o.Token = strings.TrimSpace(getenv(name)); o.Token != "" {
			return o, nil
		}
	}
	path := getenv("HF_TOKEN_PATH")
	if path == "" {
		home := getenv("HF_HOME")
		if cache := getenv("XDG_CACHE_HOME"); home == "" && cache != "" {
			home = filepath.Join(cache, "huggingface")
		}
		if user := getenv("HOME"); home == "" && user != "" {
			home = filepath.Join(user, ".cache", "huggingface")
		}
		if home == "" {
			return o, nil
		}
		path = filepath.Join(home, "token")
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxToken) {
		err = fmt.Errorf("%s is no file of a token", path)
	}
	if err != nil {
		return o, fmt.Errorf("token for the hub: %w: set HF_TOKEN or HF_TOKEN_PATH", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return o, fmt.Errorf("token for the hub: %w: set HF_TOKEN or HF_TOKEN_PATH", err)
	}
	o.Token = strings.TrimSpace(string(b))
	return o, nil
}
