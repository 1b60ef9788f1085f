package objstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// testIfAbsentRace: of 32 Puts exactly one wins, and its bytes are there.
func testIfAbsentRace(t *testing.T, b objstore.Bucket) {
	const racers = 32
	for round := range 4 {
		key := fmt.Sprintf("race/%d/result", round)
		errs := make([]error, racers)
		infos := make([]objstore.Info, racers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				data := noise(uint64(i), 5000+i)
				<-start
				infos[i], errs[i] = b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{IfAbsent: true})
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Errorf("%s: racers %d and %d both won", key, winner, i)
			case !errors.Is(err, objstore.ErrExist):
				t.Errorf("%s: racer %d: %v, want ErrExist", key, i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", key)
		}
		data := noise(uint64(winner), 5000+winner)
		want(t, b, key, data)
		checkInfo(t, infos[winner], key, data)
		if stat, err := b.Stat(t.Context(), key); err != nil || stat.Version != infos[winner].Version {
			t.Errorf("%s: winner was told version %q, Stat tells %q, %v", key, infos[winner].Version, stat.Version, err)
		}
	}
}

// testOverwriteRace: readers see one of the objects written, whole.
func testOverwriteRace(t *testing.T, b objstore.Bucket) {
	const writers, rounds = 4, 10
	// Each object consists of one byte, which also gives its size.
	object := func(x byte) []byte { return bytes.Repeat([]byte{x}, 100_000+int(x)) }
	put(t, b, "a/b", object(0))
	var writing, reading sync.WaitGroup
	var done atomic.Bool
	for i := range writers {
		writing.Go(func() {
			for j := range rounds {
				data := object(byte(i*rounds + j))
				if _, err := b.Put(t.Context(), "a/b", bytes.NewReader(data), -1, objstore.PutOptions{}); err != nil {
					t.Errorf("overwrite: %v", err)
				}
			}
		})
	}
	for range 2 {
		reading.Go(func() {
			for !done.Load() {
				got, err := read(t.Context(), b, "a/b", 0, -1)
				if err != nil || len(got) == 0 || !bytes.Equal(got, object(got[0])) {
					t.Errorf("read while overwriting: %d bytes, torn or lost, %v", len(got), err)
					return
				}
				n := 0
				for info, err := range b.List(t.Context(), "") {
					if n++; err != nil || info.Key != "a/b" || info.Size < 100_000 {
						t.Errorf("list while overwriting: %+v, %v", info, err)
					}
				}
				if n != 1 {
					t.Errorf("list while overwriting gave %d objects, want 1", n)
					return
				}
			}
		})
	}
	writing.Wait()
	done.Store(true)
	reading.Wait()
}

// testFolderRace: neighbours that come and go do not disturb each other, though
// some backends make and remove folders for them.
func testFolderRace(t *testing.T, b objstore.Bucket) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key := fmt.Sprintf("x/y/%d/z", i%4*4+i)
			data := noise(uint64(i), 100+i)
			for j := range 25 {
				o := objstore.PutOptions{IfAbsent: j%2 == 0}
				if _, err := b.Put(t.Context(), key, bytes.NewReader(data), -1, o); err != nil {
					t.Errorf("Put(%q): %v", key, err)
					return
				}
				got, err := read(t.Context(), b, key, 0, -1)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("Get(%q): %d bytes, %v", key, len(got), err)
					return
				}
				if err := b.Delete(t.Context(), key); err != nil {
					t.Errorf("Delete(%q): %v", key, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if left := keys(t, b, ""); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
