// Package probe tries whether a store can do what a fleet needs of it, and says
// what is missing. It writes a few small objects under a key that nobody else uses,
// and removes them again.
package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// Check is one thing that was tried.
type Check struct {
	Name   string
	OK     bool
	Detail string // what was seen
	Remedy string // what to do, if it is not OK, or if it should be better
}

const (
	folder = "doctor-probe"
	// racers put at once.
	racers = 8
	// rounds of the latency check.
	rounds = 5
	// tolerance is how far clocks may differ before it is worth a word. S3 refuses
	// requests at 15 minutes.
	tolerance = 2 * time.Minute
	// cleanUp bounds the removal of what was written.
	cleanUp = 30 * time.Second
)

// probe is one run over a store.
type probe struct {
	ctx    context.Context
	b      objstore.Bucket // below a folder of our own
	checks []Check
}

// Probe tries b. What builds on a check that failed is not tried.
func Probe(ctx context.Context, b objstore.Bucket) []Check {
	p := &probe{ctx: ctx, b: objstore.Prefix(b, folder+"/"+rand.Text())}
	if p.write() {
		p.conditional()
		p.stat()
		p.ranges()
		p.versions()
		p.list()
		p.copy(b)
		p.remove()
		p.clock()
		p.latency()
	}
	p.clean()
	return p.checks
}

// OK says whether all checks are.
func OK(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { return !c.OK })
}

// add notes the outcome of a check.
func (p *probe) add(name string, err error, remedy, detail string, args ...any) bool {
	c := Check{Name: name, OK: err == nil, Detail: fmt.Sprintf(detail, args...)}
	if err != nil {
		c.Detail, c.Remedy = err.Error(), cmp.Or(remedyOf(err), remedy)
	}
	p.checks = append(p.checks, c)
	return err == nil
}

// remedyOf knows what helps against the errors that have a name.
func remedyOf(err error) string {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "the store was too slow, or the probe was stopped: try again with more time"
	case errors.Is(err, objstore.ErrFull):
		return "free space in the store, or have its quota raised"
	case errors.Is(err, objstore.ErrReadOnly):
		return "allow writing: on S3 the policy needs PutObject, DeleteObject and AbortMultipartUpload below the prefix; of a directory check owner and mode"
	case errors.Is(err, objstore.ErrRoot):
		return "check the store's URL, endpoint and credentials; `shardpress doctor --create` makes a missing bucket"
	}
	return ""
}

func (p *probe) put(key, text string, ifAbsent bool) (objstore.Info, error) {
	return p.b.Put(p.ctx, key, strings.NewReader(text), int64(len(text)), objstore.PutOptions{IfAbsent: ifAbsent})
}

// get reads a range.
func (p *probe) get(key string, off, n int64) (string, error) {
	r, err := p.b.Get(p.ctx, key, off, n)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return string(data), err
}

const text = "what the probe of a store writes"

func (p *probe) write() bool {
	_, err := p.put("object", text, false)
	if err == nil {
		var got string
		if got, err = p.get("object", 0, -1); err == nil && got != text {
			err = fmt.Errorf("%d bytes were written, %d others came back", len(text), len(got))
		}
	}
	return p.add("write and read", err, "the store loses or changes what is written: do not use it", "%d bytes came back as they were written", len(text))
}

// conditional: without it two workers could both commit.
func (p *probe) conditional() {
	const remedy = "the server must support If-None-Match: * on PUT, as AWS S3 and versitygw do: use another one, or a newer version"
	_, err := p.put("once/object", "first", true)
	if err == nil {
		_, err = p.put("once/object", "second", true)
		switch {
		case err == nil:
			err = errors.New("the second put of an object that was there succeeded: the store ignores the condition")
		case errors.Is(err, objstore.ErrExist):
			err = nil
		}
	}
	if err == nil {
		var got string
		if got, err = p.get("once/object", 0, -1); err == nil && got != "first" {
			err = errors.New("a refused put changed the object")
		}
	}
	if !p.add("conditional put", err, remedy, "the second put of an object was refused") {
		return
	}
	var wg sync.WaitGroup
	errs := make([]error, racers)
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.put("race/object", strings.Repeat("x", i+1), true) })
	}
	wg.Wait()
	won := 0
	err = nil
	for _, e := range errs {
		switch {
		case e == nil:
			won++
		case !errors.Is(e, objstore.ErrExist):
			err = e
		}
	}
	if err == nil && won != 1 {
		err = fmt.Errorf("of %d puts at the same time %d succeeded, instead of one", racers, won)
	}
	p.add("conditional put, at once", err, remedy, "of %d puts at the same time one succeeded", racers)
}

func (p *probe) stat() {
	info, err := p.b.Stat(p.ctx, "object")
	switch {
	case err != nil:
	case info.Size != int64(len(text)) || info.Version == "":
		err = fmt.Errorf("told size %d and version %q of an object of %d bytes", info.Size, info.Version, len(text))
	default:
		if _, e := p.b.Stat(p.ctx, "object-that-is-not-there"); !errors.Is(e, objstore.ErrNotExist) {
			err = fmt.Errorf("an object that is not there: %w", cmp.Or(e, errors.New("found")))
		}
	}
	p.add("stat", err, "the credentials need ListBucket too: without it S3 does not say that an object is missing", "size and version are told, and what is missing is missing")
}

func (p *probe) ranges() {
	got, err := p.get("object", 5, 10)
	if err == nil && got != text[5:15] {
		err = fmt.Errorf("asked for 10 bytes from the 5th, got %d others", len(got))
	}
	if err == nil {
		if got, err = p.get("object", int64(len(text)), 1); err == nil && got != "" {
			err = errors.New("there are bytes behind the end")
		}
	}
	p.add("ranged read", err, "the server must support Range: use another one", "ten bytes out of the middle")
}

// versions: sources that are used in place must not change under a run.
func (p *probe) versions() {
	err := func() error {
		old, err := p.put("version/object", "old bytes", false)
		if err != nil {
			return err
		}
		r, err := objstore.GetIf(p.ctx, p.b, "version/object", old.Version, 0, -1)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != "old bytes" {
			return fmt.Errorf("the version that is there: %d bytes, %w", len(got), err)
		}
		if _, err := p.put("version/object", "new bytes", false); err != nil {
			return err
		}
		r, err = objstore.GetIf(p.ctx, p.b, "version/object", old.Version, 0, -1)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if !errors.Is(err, objstore.ErrChanged) {
			return fmt.Errorf("an overwritten version: %w", cmp.Or(err, errors.New("was read")))
		}
		return nil
	}()
	p.add("read of one version", err, "the server must support ETags and If-Match on GET: use another one", "an overwritten version is not given any more")
}

func (p *probe) list() {
	err := func() error {
		keys := []string{"list/a-b", "list/a.b", "list/a/b", "list/a0", "list/b"} // in the order of their bytes
		for _, i := range []int{3, 0, 4, 2, 1} {
			if _, err := p.put(keys[i], "", false); err != nil {
				return err
			}
		}
		var got []string
		for info, err := range p.b.List(p.ctx, "list/") {
			if err != nil {
				return err
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, keys) {
			return fmt.Errorf("listed %q, want %q", got, keys)
		}
		return nil
	}()
	p.add("list", err, "the server must list all objects in the order of their keys' bytes, at once after they are put: use another one", "in order, and complete")
}

// copy: a store that cannot is slower, and no worse.
func (p *probe) copy(b objstore.Bucket) {
	const name = "copy"
	how := "within the store"
	_, direct := b.(objstore.Copier)
	err := func() error {
		if direct {
			_, err := p.b.(objstore.Copier).Copy(p.ctx, "copy/object", p.b, "object") //nolint:errcheck // Prefix is one
			if direct = !errors.Is(err, objstore.ErrCannotCopy); direct && err != nil {
				return err
			}
		}
		if !direct {
			how = "through this process: the store streams"
			if _, err := objstore.Copy(p.ctx, p.b, "copy/object", p.b, "object"); err != nil {
				return err
			}
		}
		got, err := p.get("copy/object", 0, -1)
		if err == nil && got != text {
			err = errors.New("the copy has other bytes")
		}
		return err
	}()
	p.add(name, err, "the server must support CopyObject", "%s", how)
}

func (p *probe) remove() {
	err := p.b.Delete(p.ctx, "copy/object")
	if err == nil {
		if _, e := p.b.Stat(p.ctx, "copy/object"); !errors.Is(e, objstore.ErrNotExist) {
			err = fmt.Errorf("a deleted object: %w", cmp.Or(e, errors.New("is still there")))
		}
	}
	if err == nil {
		err = p.b.Delete(p.ctx, "copy/object")
	}
	p.add("delete", err, "the credentials need DeleteObject", "gone at once")
}

// clock compares the store's clock with ours: only worth knowing.
func (p *probe) clock() {
	before := time.Now()
	info, err := p.put("clock/object", "", false)
	if err != nil {
		p.add("clock", err, "", "")
		return
	}
	// The store's time is told in whole seconds.
	d := info.ModTime.Sub(before.Add(time.Since(before) / 2)).Round(time.Second)
	c := Check{Name: "clock", OK: true, Detail: "agrees with this machine's"}
	switch {
	case d > time.Second:
		c.Detail = fmt.Sprintf("%s ahead of this machine's", d)
	case d < -time.Second:
		c.Detail = fmt.Sprintf("%s behind this machine's", -d)
	}
	if d.Abs() > tolerance {
		c.Remedy = "set the clocks (NTP): S3 refuses requests when they differ by 15 minutes"
	}
	p.checks = append(p.checks, c)
}

// latency takes the time of small questions.
func (p *probe) latency() {
	var took []time.Duration
	for range rounds {
		start := time.Now()
		if _, err := p.b.Stat(p.ctx, "object"); err != nil {
			p.add("latency", err, "", "")
			return
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	p.add("latency", nil, "", "%s for a small request (median of %d, worst %s)", took[rounds/2].Round(10*time.Microsecond), rounds, took[rounds-1].Round(10*time.Microsecond))
}

// clean removes what was written, also when the probe was stopped.
func (p *probe) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), cleanUp)
	defer cancel()
	var errs []error
	for info, err := range p.b.List(ctx, "") {
		if err != nil {
			errs = append(errs, err)
			break
		}
		errs = append(errs, p.b.Delete(ctx, info.Key))
	}
	if err := errors.Join(errs...); err != nil && len(p.checks) > 0 && p.checks[0].OK {
		p.add("clean up", err, "delete what lies below "+folder+"/ by hand", "")
	}
}
