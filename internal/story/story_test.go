package story

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
)

func open(t *testing.T, seed uint64) *Stories {
	t.Helper()
	s, err := New(seed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(t *testing.T, s *Stories) (string, float64) {
	t.Helper()
	text, bits, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	return text, bits
}

// TestGolden holds the bytes of a seed for ever: the bundled models were
// trained on them, and perplexities are quoted for held-out seeds.
func TestGolden(t *testing.T) {
	t.Parallel()
	h := sha256.New()
	s := open(t, 1)
	for range 200 {
		text, _ := next(t, s)
		h.Write([]byte(text))
		h.Write([]byte{0})
	}
	const want = "09e4c165603e096165c64e9bd2a93a4d1a1d1dd52652b58d92636de6a4510f9a"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("first 200 stories of seed 1 have digest %s, not %s: a changed grammar needs retrained models", got, want)
	}
}

// TestRandomKnownValues: the first outputs of SplitMix64 from state 0 are published
// with the reference implementation.
func TestRandomKnownValues(t *testing.T) {
	t.Parallel()
	var r random
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := r.next(); got != want {
			t.Errorf("output %d: %#x, want %#x", i, got, want)
		}
	}
	for n := uint64(1); n < 50; n++ {
		if got := r.below(n); got >= n {
			t.Errorf("below(%d) gave %d", n, got)
		}
	}
}

// TestBitsFromTextAlone reads stories back. Bits also fails when at any choice on
// the way two options begin alike, so it shows that each text has one derivation.
func TestBitsFromTextAlone(t *testing.T) {
	t.Parallel()
	s := open(t, 42)
	count := 2000
	if testing.Short() {
		count = 200
	}
	for range count {
		text, want := next(t, s)
		got, err := s.Bits(text)
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if math.Abs(got-want) > 1e-9 {
			t.Fatalf("bits %v from the text, %v when written: %q", got, want, text)
		}
	}
}

// TestEntropyIsTheMean compares the exact sum with a Monte Carlo mean, to five of its standard errors.
func TestEntropyIsTheMean(t *testing.T) {
	t.Parallel()
	s := open(t, 7)
	count := 8000
	if testing.Short() {
		count = 1000
	}
	var sum, squares float64
	for range count {
		_, bits := next(t, s)
		sum += bits
		squares += bits * bits
	}
	mean := sum / float64(count)
	deviation := math.Sqrt(squares/float64(count) - mean*mean)
	tolerance := 5 * deviation / math.Sqrt(float64(count))
	if exact := s.Entropy(); math.Abs(mean-exact) > tolerance {
		t.Errorf("mean of %d stories %v bits, exact entropy %v, tolerance %v", count, mean, exact, tolerance)
	}
}

// TestStoriesRemember: what a story says of its end it has said at its beginning.
func TestStoriesRemember(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	for range 300 {
		text, _ := next(t, s)
		fields := strings.Fields(text)
		var hero string
		for i, w := range fields[:len(fields)-1] {
			if w == "named" || w == "called" {
				hero = strings.TrimSuffix(fields[i+1], ".")
				break
			}
		}
		ending := text[strings.LastIndex(text, "\n")+1:]
		if hero == "" || strings.Count(ending, hero) < 2 {
			t.Fatalf("hero %q not recalled in the ending: %q", hero, text)
		}
		if strings.Contains(text, "  ") || strings.Contains(text, " \n") || strings.Contains(text, "\n ") {
			t.Fatalf("blanks at the wrong place: %q", text)
		}
	}
}

func TestBitsRefusesOtherText(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	text, _ := next(t, s)
	for name, other := range map[string]string{
		"empty":     "",
		"cut":       text[:len(text)-1],
		"continued": text + " ",
		"replaced":  strings.Replace(text, "child", "cloud", 1),
		"foreign":   "Call me Ishmael.",
	} {
		if _, err := s.Bits(other); !errors.Is(err, ErrNotStory) {
			t.Errorf("%s: error %v, want ErrNotStory", name, err)
		}
	}
}

func FuzzBits(f *testing.F) {
	s, err := New(11)
	if err != nil {
		f.Fatal(err)
	}
	for range 5 {
		text, _, err := s.Next()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		bits, err := s.Bits(text)
		if err != nil && !errors.Is(err, ErrNotStory) {
			t.Fatalf("%v for %q", err, text)
		}
		if err == nil && bits <= 0 {
			t.Fatalf("%v bits for %q", bits, text)
		}
	})
}
