package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/objstore"
)

// Bounds of what the hub answers.
const (
	maxAnswer = 64 << 20
	maxPages  = 2000
	maxFiles  = 200_000
)

// commit asks which commit a revision is.
func (l *link) commit(ctx context.Context, ref Ref) (string, error) {
	b, _, err := l.ask(ctx, l.address("/api/models/"+ref.ID+"/revision/"+url.PathEscape(ref.Revision)), ref)
	if err != nil {
		return "", err
	}
	return parseCommit(b)
}

func parseCommit(b []byte) (string, error) {
	var answer struct {
		SHA string `json:"sha"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return "", fmt.Errorf("read the hub's answer: %w", err)
	}
	if !commit.MatchString(answer.SHA) {
		return "", fmt.Errorf("read the hub's answer: commit %q is none; is the endpoint a hub?", clip(answer.SHA))
	}
	return answer.SHA, nil
}

// tree lists the files of a commit by key.
func (l *link) tree(ctx context.Context, ref Ref) ([]objstore.Info, error) {
	var files []objstore.Info
	at := l.address("/api/models/" + ref.ID + "/tree/" + url.PathEscape(ref.Revision))
	at.RawQuery = "recursive=true"
	seen := map[string]bool{}
	for page := 0; at != nil; page++ {
		if page == maxPages || seen[at.RequestURI()] {
			return nil, fmt.Errorf("list files: the hub gives page after page, %d so far", page)
		}
		seen[at.RequestURI()] = true
		b, header, err := l.ask(ctx, at, ref)
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
		more, err := parseTree(b)
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
		if files = append(files, more...); len(files) > maxFiles {
			return nil, fmt.Errorf("list files: more than %d", maxFiles)
		}
		if at, err = l.nextPage(header, at); err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
	}
	slices.SortFunc(files, func(a, b objstore.Info) int { return strings.Compare(a.Key, b.Key) })
	for i := range files[:max(len(files)-1, 0)] {
		if files[i].Key == files[i+1].Key {
			return nil, fmt.Errorf("list files: the hub lists %s twice", files[i].Key)
		}
	}
	return files, nil
}

// parseTree reads a page of a listing.
func parseTree(b []byte) ([]objstore.Info, error) {
	var entries []struct {
		Type string `json:"type"`
		Path string `json:"path"`
		Size int64  `json:"size"`
		OID  string `json:"oid"`
		LFS  *struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		} `json:"lfs"`
	}
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	var files []objstore.Info
	for _, e := range entries {
		if e.Type != "file" || objstore.CheckKey(e.Path) != nil || path.Clean(e.Path) != e.Path {
			continue
		}
		f := objstore.Info{Key: e.Path, Size: e.Size, Version: e.OID}
		if e.LFS != nil {
			digest, ok := sum(strings.TrimPrefix(e.LFS.OID, "sha256:"))
			if !ok {
				return nil, fmt.Errorf("read the hub's answer: %s: SHA-256 %q", e.Path, clip(e.LFS.OID))
			}
			f.Size, f.SHA256, f.Version = e.LFS.Size, digest, "sha256:"+strings.TrimPrefix(e.LFS.OID, "sha256:")
		}
		if f.Size < 0 || f.Version == "" || len(f.Version) > 128 {
			return nil, fmt.Errorf("read the hub's answer: %s: %d bytes, ID %q", e.Path, f.Size, clip(f.Version))
		}
		files = append(files, f)
	}
	return files, nil
}

// nextPage finds the address of the page after the one that was read at, nil for none. It is asked of the endpoint, also where a mirror hands on
// the hub's own address: the token would go with it.
func (l *link) nextPage(h http.Header, at *url.URL) (*url.URL, error) {
	for _, v := range h.Values("Link") {
		for _, part := range strings.Split(v, ",") {
			target, params, ok := strings.Cut(part, ">")
			target = strings.TrimSpace(target)
			if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
				continue
			}
			u, err := at.Parse(target[1:])
			if err != nil || u.Opaque != "" {
				return nil, fmt.Errorf("read the hub's answer: the address of the next page is none")
			}
			next := *l.endpoint
			next.RawQuery = u.RawQuery
			next.Path, next.RawPath = at.Path, at.RawPath // a page of the same listing
			return &next, nil
		}
	}
	return nil, nil
}

// ask reads a whole answer of the API.
func (l *link) ask(ctx context.Context, at *url.URL, ref Ref) (body []byte, header http.Header, err error) {
	err = l.again(ctx, func() error {
		resp, _, err := l.get(ctx, at, "", ref)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
			return &passing{err: conceal(err)}
		}
		if len(body) > maxAnswer {
			return fmt.Errorf("the hub's answer has more than %d bytes", maxAnswer)
		}
		header = resp.Header
		return nil
	})
	return body, header, err
}
