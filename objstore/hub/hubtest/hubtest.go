// Package hubtest is a small hub on this machine for tests: it speaks the part of the Hugging Face hub's HTTP API that package hub uses, keeps large
// files on another host, and can be told to fail.
package hubtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ID is the repository that the hub has.
const ID = "some-org/Tiny_Model-1.5"

// Hub is a hub with one repository.
type Hub struct {
	// Endpoint is its address, Large that of the host of large files.
	Endpoint, Large string
	// Token, if not empty, is what the repository may be read with.
	Token string
	// Page is how many files a page of the listing has; 0 means 1000.
	Page int
	// Foreign makes the links to further pages lead to another host, as those of mirrors do.
	Foreign bool

	mu      sync.Mutex
	commits map[string]map[string][]byte // files by commit, then path
	refs    map[string]string            // branches and tags
	signed  int                          // of the signatures that are valid
	faults  []Fault
	asked   []*http.Request
}

// Fault is something that goes wrong with requests whose path contains Path.
type Fault struct {
	Path   string
	Times  int
	Status int // answer with it,
	Header http.Header
	Cut    int // or, if positive, break the connection after so many bytes of the body
}

// New starts a hub whose main branch holds files.
func New(t testing.TB, files map[string][]byte) *Hub {
	t.Helper()
	h := &Hub{commits: map[string]map[string][]byte{}, refs: map[string]string{}}
	h.Commit("main", files)
	hub, large := httptest.NewServer(http.HandlerFunc(h.serve)), httptest.NewServer(http.HandlerFunc(h.serveLarge))
	t.Cleanup(hub.Close)
	t.Cleanup(large.Close)
	h.Endpoint, h.Large = hub.URL, large.URL
	return h
}

// Commit moves a branch to a new commit with these files, and returns the commit.
func (h *Hub) Commit(branch string, files map[string][]byte) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := name(fmt.Appendf(nil, "%d", len(h.commits)))
	h.commits[c], h.refs[branch] = files, c
	return c
}

// name is 40 hexadecimal digits, as git names things by.
func name(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:20])
}

// Fail plans faults.
func (h *Hub) Fail(f ...Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f...)
}

// Expire makes the addresses of large files that were given out invalid.
func (h *Hub) Expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signed++
}

// Asked gives the requests since the last call.
func (h *Hub) Asked() []*http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

// IsLarge reports whether a file lies in large-file storage.
func IsLarge(path string) bool {
	return strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".bin")
}

// fault finds what is to go wrong with a request.
func (h *Hub) fault(r *http.Request) (Fault, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, r)
	for i := range h.faults {
		if f := &h.faults[i]; f.Times > 0 && strings.Contains(r.URL.Path, f.Path) {
			f.Times--
			return *f, true
		}
	}
	return Fault{}, false
}

// broken writes what a fault says and reports whether the request is done with. Else it gives the writer for the answer.
func (h *Hub) broken(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
	f, ok := h.fault(r)
	switch {
	case !ok:
		return w, false
	case f.Cut > 0:
		return &cutter{ResponseWriter: w, left: f.Cut}, false
	}
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(f.Status)
	return w, true
}

// cutter breaks a connection in the middle of an answer.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left]) // the connection ends here
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// serve is the hub itself.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	w, done := h.broken(w, r)
	if done {
		return
	}
	refuse := func(status int, code string) {
		w.Header().Set("X-Error-Code", code)
		w.WriteHeader(status)
	}
	if h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token {
		refuse(http.StatusUnauthorized, "GatedRepo")
		return
	}
	path := r.URL.Path
	api, isAPI := strings.CutPrefix(path, "/api/models/"+ID+"/")
	file, isFile := strings.CutPrefix(path, "/"+ID+"/resolve/")
	switch {
	case isAPI && strings.HasPrefix(api, "revision/"):
		c, ok := h.resolve(strings.TrimPrefix(api, "revision/"))
		if !ok {
			refuse(http.StatusNotFound, "RevisionNotFound")
			return
		}
		fmt.Fprintf(w, `{"id":%q,"sha":%q,"private":false}`, ID, c)
	case isAPI && strings.HasPrefix(api, "tree/"):
		h.tree(w, r, strings.TrimPrefix(api, "tree/"))
	case isFile:
		rev, name, _ := strings.Cut(file, "/")
		h.file(w, r, rev, name)
	default:
		refuse(http.StatusNotFound, "RepoNotFound")
	}
}

func (h *Hub) resolve(rev string) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.refs[rev]; ok {
		return c, true
	}
	_, ok := h.commits[rev]
	return rev, ok
}

func (h *Hub) filesOf(commit string) (map[string][]byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	files, ok := h.commits[commit]
	return files, ok
}

func (h *Hub) tree(w http.ResponseWriter, r *http.Request, rev string) {
	c, _ := h.resolve(rev)
	files, ok := h.filesOf(c)
	if !ok {
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	type lfs struct {
		OID  string `json:"oid"`
		Size int    `json:"size"`
	}
	type entry struct {
		Type string `json:"type"`
		OID  string `json:"oid"`
		Size int    `json:"size"`
		LFS  *lfs   `json:"lfs,omitempty"`
		Path string `json:"path"`
	}
	var list []entry
	for path, b := range files {
		e := entry{Type: "file", OID: name(b), Size: len(b), Path: path}
		if IsLarge(path) {
			sum := sha256.Sum256(b)
			e.LFS = &lfs{hex.EncodeToString(sum[:]), len(b)}
		}
		list = append(list, e)
		if dir, _, ok := strings.Cut(path, "/"); ok {
			list = append(list, entry{Type: "directory", OID: c, Path: dir})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	list = slices.CompactFunc(list, func(a, b entry) bool { return a.Path == b.Path })
	page := h.Page
	if page == 0 {
		page = 1000
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor")) // none is 0
	to := min(from+page, len(list))
	if to < len(list) {
		host := h.Endpoint
		if h.Foreign {
			host = "https://hub.invalid"
		}
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, host, r.URL.EscapedPath(), to))
	}
	b, err := json.Marshal(list[from:to])
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(b) // the client went away
}

// file serves a small file, or says where a large one is.
func (h *Hub) file(w http.ResponseWriter, r *http.Request, commit, name string) {
	files, ok := h.filesOf(commit)
	b, found := files[name]
	if !ok || !found {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if !IsLarge(name) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return
	}
	h.mu.Lock()
	at := fmt.Sprintf("%s/%s/%s?signature=secret%d", h.Large, commit, url.PathEscape(name), h.signed)
	h.mu.Unlock()
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(b)))
	http.Redirect(w, r, at, http.StatusFound)
}

// serveLarge is the host of large files: it wants a signature and no token.
func (h *Hub) serveLarge(w http.ResponseWriter, r *http.Request) {
	w, done := h.broken(w, r)
	if done {
		return
	}
	h.mu.Lock()
	valid := fmt.Sprintf("secret%d", h.signed)
	h.mu.Unlock()
	commit, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	files, _ := h.filesOf(commit)
	b, ok := files[name]
	switch {
	case r.Header.Get("Authorization") != "":
		w.WriteHeader(http.StatusBadRequest) // as stores do that are given two permissions
	case r.URL.Query().Get("signature") != valid:
		w.WriteHeader(http.StatusForbidden)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}
