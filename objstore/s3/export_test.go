package s3

import "time"

// SetPause sets the pause before the first repetition.
func (b *Bucket) SetPause(d time.Duration) { b.backoff = d }

// SetMaxCopy sets how much is copied in one request.
func (b *Bucket) SetMaxCopy(n int64) { b.maxCopy = n }

// Limit is how many requests may be open now.
func (b *Bucket) Limit() int { return b.limit.now() }

// Extra is how many buffers uploads hold beyond their first.
func (b *Bucket) Extra() int { return len(b.extra) }

// ForgetBucket makes the bucket ask whether it is there.
func (b *Bucket) ForgetBucket() { b.seen.Store(0) }

// NotesOf gives the notes of a store without opening it.
func NotesOf(o Options) ([]string, error) {
	b, err := newBucket(o)
	if err != nil {
		return nil, err
	}
	return b.Notes(), nil
}
