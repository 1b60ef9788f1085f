package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// do runs one operation of minio-go, which is one request, and repeats it while it
// fails for a reason that may pass. What it returns is for explain.
func (b *Bucket) do(ctx context.Context, op func(ctx context.Context, x *exchange) error) error {
	var last *failure
	for try := 0; ; try++ {
		octx, cancel := context.WithCancel(ctx)
		x := &exchange{cancel: cancel}
		err := op(withExchange(octx, x), x)
		if !x.keep {
			cancel()
		}
		if err == nil {
			return nil
		}
		if e := ctx.Err(); e != nil {
			return b.gaveUp(e, last)
		}
		err = b.classify(err, x)
		var f *failure
		if !errors.As(err, &f) || !f.passes || try >= b.o.Retries {
			return err
		}
		if f.expired { // ask the chain for others
			b.creds.Expire()
		}
		last = f
		if err := b.pause(ctx, try, x.retryAfter); err != nil {
			return b.gaveUp(err, last)
		}
	}
}

// gaveUp is the end of a context between tries, with what kept them from success: that
// time ran out says nothing of a server that is down. It is the context's error and
// nothing else to whoever asks what it is.
func (b *Bucket) gaveUp(ended error, last *failure) error {
	if last == nil {
		return ended
	}
	return fmt.Errorf("%w: %s", ended, b.explanation(last, reading).Error())
}

// pause waits before the next try: half of it fixed, so that a server gets time to
// start again, and half by chance, so that clients spread.
func (b *Bucket) pause(ctx context.Context, try int, least time.Duration) error {
	p := min(b.backoff<<min(try, 20), maxPause)
	p = max(p/2+rand.N(p/2+1), least)
	timer := time.NewTimer(p)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing says whether the reason of a refusal may pass by itself.
func passing(status int, code string) bool {
	switch code {
	case "InternalError", "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "RequestTimeout", "RequestLimitExceeded", "Throttling",
		"ThrottlingException", "RequestThrottled", "OperationAborted",
		// The body did not arrive as it was sent.
		"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "ExpiredToken", "ExpiredTokenException":
		return true
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout, 499, 520: // the last two are proxies' own
		return true
	}
	return false
}
