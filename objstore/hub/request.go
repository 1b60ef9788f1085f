package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

const (
	// maxTries is how often a request is made before its trouble is no longer taken for passing; with doubling pauses, about two minutes.
	maxTries = 9
	// firstPause and longestPause bound the wait before a request is made again; longestAsked bounds what the hub may ask for.
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second
	longestAsked = 5 * time.Minute
	// answerTime is how long a server may take to begin its answer, and a connection may give nothing.
	answerTime = time.Minute
	// maxRedirects bounds how often a request is sent elsewhere.
	maxRedirects = 10
)

// link is the way to a hub.
type link struct {
	endpoint *url.URL // without a slash at its end
	token    string
	client   *http.Client
	wait     func(context.Context, time.Duration) error
}

// passing is trouble that may be over when the request is made again.
type passing struct {
	err   error
	after time.Duration // what the server asks for
}

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again calls f until it succeeds, fails for good or has failed too often.
func (l *link) again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		var p *passing
		if err == nil || !errors.As(err, &p) || ctx.Err() != nil {
			return err
		}
		if try == maxTries {
			return fmt.Errorf("%w (tried %d times)", err, try)
		}
		if err := l.wait(ctx, pause(try, p.after)); err != nil {
			return err
		}
	}
}

// pause is how long to wait after the try-th failure: what the server asked for, or twice as long each time, and some more so that a thousand
// workers do not come back at once.
func pause(try int, asked time.Duration) time.Duration {
	d := min(firstPause<<(try-1), longestPause)
	if asked > d {
		d = min(asked, longestAsked)
	}
	return d + rand.N(d/4+1)
}

// address is that of a path of the hub, which is escaped already.
func (l *link) address(path string) *url.URL {
	u := *l.endpoint
	whole, err := url.PathUnescape(path)
	if err != nil {
		whole = path
	}
	u.RawPath = u.EscapedPath() + path
	u.Path += whole
	return &u
}

// get makes one request for the bytes of a range ("" for all) and follows redirects. It returns the answer, which is one of success, and
// the address that gave it.
func (l *link) get(ctx context.Context, at *url.URL, bytes string, ref Ref) (*http.Response, *url.URL, error) {
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
		if err != nil {
			return nil, nil, errors.New("the hub gave an address that is none")
		}
		req.Header.Set("User-Agent", "shardpress")
		req.Header.Set("Accept-Encoding", "identity") // ranges of what is stored, not of what is sent
		if bytes != "" {
			req.Header.Set("Range", "bytes="+bytes)
		}
		if l.token != "" && l.ours(at) {
			req.Header.Set("Authorization", "Bearer "+l.token)
		}
		resp, err := l.client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			return nil, nil, &passing{err: fmt.Errorf("ask %s: %w", at.Host, conceal(err))}
		}
		switch resp.StatusCode {
		case http.StatusOK, http.StatusPartialContent:
			return resp, at, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			err := l.refusal(resp, at, ref)
			discard(resp.Body)
			return nil, nil, err
		}
		to := resp.Header.Get("Location")
		discard(resp.Body)
		next, err := at.Parse(to)
		if err != nil || to == "" || next.Host == "" || next.User != nil || next.Scheme != "https" && (next.Scheme != "http" || at.Scheme == "https") {
			return nil, nil, fmt.Errorf("%s redirects to an address that cannot be asked", at.Host)
		}
		at = next
	}
	return nil, nil, fmt.Errorf("%s redirects more than %d times", l.endpoint.Host, maxRedirects)
}

// ours reports whether an address is the endpoint's, which the token is for.
func (l *link) ours(u *url.URL) bool {
	return u.Scheme == l.endpoint.Scheme && u.Host == l.endpoint.Host
}

// discard reads the little that may be left, so that the connection can be used again.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // nothing is lost with it
	body.Close()
}

// refusal says what an answer means that is no success.
func (l *link) refusal(resp *http.Response, at *url.URL, ref Ref) error {
	code := clip(resp.Header.Get("X-Error-Code"))
	status := resp.Status
	if code != "" {
		status += ", " + code
	}
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 && s != http.StatusNotImplemented:
		return &passing{err: fmt.Errorf("%s answers %s", at.Host, status), after: retryAfter(resp.Header)}
	case !l.ours(at): // an address that was given out, perhaps too long ago
		if s == http.StatusRequestedRangeNotSatisfiable {
			return fmt.Errorf("%w: %s answers %s", objstore.ErrRange, at.Host, status)
		}
		return &passing{err: fmt.Errorf("%s, where the hub keeps the file, answers %s", at.Host, status)}
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		what := "set HF_TOKEN to a token that may read it"
		if l.token != "" {
			what = "the token given may not read it"
		}
		return fmt.Errorf("%w (%s): %s is private, gated or not there: accept its licence at %s/%s in a browser, and %s", ErrRefused, status, ref.ID, l.endpoint, ref.ID, what)
	case s == http.StatusNotFound && code == "RevisionNotFound":
		return fmt.Errorf("%w: %s has no revision %s: name a branch, a tag or a commit after @", objstore.ErrNotExist, ref.ID, ref.Revision)
	case s == http.StatusNotFound:
		return fmt.Errorf("%w: the hub at %s has no %s (%s): check owner, name and revision", objstore.ErrNotExist, l.endpoint.Host, ref, status)
	case s == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: the hub answers %s", objstore.ErrRange, status)
	default:
		return fmt.Errorf("the hub at %s answers %s", at.Host, status)
	}
}

// retryAfter reads how long a server wants to be left alone: Retry-After, or as the hub says it, the t of a RateLimit that has r=0 left
// (draft-ietf-httpapi-ratelimit-headers).
func retryAfter(h http.Header) time.Duration {
	if limit := h.Get("RateLimit"); h.Get("Retry-After") == "" {
		for _, part := range strings.Split(limit, ";") {
			if n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(part), "t=")); err == nil && n > 0 {
				return time.Duration(min(n, int(longestAsked/time.Second))) * time.Second
			}
		}
		return 0
	}
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return time.Duration(min(n, int(longestAsked/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, min(time.Until(t), longestAsked))
	}
	return 0
}

// conceal takes the address out of an error of the client: it may hold a signature that opens the file.
func conceal(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
