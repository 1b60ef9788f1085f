package recipe_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
)

const kvStep = "steps: [{method: fp8, targets: Linear}]\n"

func TestKVCache(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"kv_cache: {}\n": `"kv_cache":{"bits":8,"type":"float","strategy":"tensor","dynamic":true},`,
		"kv_cache: {bits: 8, type: int, strategy: token}\n":          `"kv_cache":{"bits":8,"type":"int","strategy":"token","dynamic":true},`,
		"kv_cache: {strategy: group, group: 32, dynamic: true}\n":    `"kv_cache":{"bits":8,"type":"float","strategy":"group","group":32,"dynamic":true},`,
		"kv_cache: {}\noutput: {format: mixed-precision}\nseed: 3\n": `"kv_cache":{`,
	} {
		r, err := recipe.Parse("f.yaml", []byte(kvStep+text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := canonical(t, r)
		if !strings.Contains(got, want) {
			t.Errorf("%s gives %s, want %s in it", text, got, want)
		}
		again, err := recipe.ParseCanonical("f.json", []byte(got))
		if err != nil || canonical(t, again) != got {
			t.Errorf("%s reads as another recipe: %v", got, err)
		}
		if err := r.Set("kv_cache", ""); err != nil || strings.Contains(canonical(t, r), "kv_cache") {
			t.Errorf("%s cannot be taken away: %v", text, err)
		}
	}
	if r, err := recipe.Parse("f.yaml", []byte(kvStep)); err != nil || strings.Contains(canonical(t, r), "kv_cache") {
		t.Errorf("a recipe without it: %v", err)
	}
}

func TestKVCacheRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		kvStep + "kv_cache: {bits: 4}\n":                                                        "f.yaml:2:18: kv_cache.bits is 4, and takes 8",
		kvStep + "kv_cache: {type: fp8}\n":                                                      "takes float or int",
		kvStep + "kv_cache: {strategy: channel}\n":                                              "takes tensor, token or group",
		kvStep + "kv_cache: {strategy: group}\n":                                                "kv_cache.group is 0",
		kvStep + "kv_cache: {group: 32}\n":                                                      "with strategy: group only",
		kvStep + "kv_cache: {dynamic: false}\n":                                                 "have to be measured on data",
		kvStep + "kv_cache: {dynamic: 3}\n":                                                     "kv_cache.dynamic takes true",
		kvStep + "kv_cache: {bit: 8}\n":                                                         "did you mean bits?",
		kvStep + "kv_cache: 8\n":                                                                "f.yaml:2",
		kvStep + "kv_cache: {}\noutput: {format: dense}\n":                                      "output format dense has no place for kv_cache",
		kvStep + "kv_cache: {}\noutput: {format: shardpress}\n":                                 "output format shardpress has no place for kv_cache",
		"steps: [{method: rtn, targets: Linear}]\nkv_cache: {}\noutput: {format: shardpress}\n": "has no place",
	} {
		r, err := recipe.Parse("f.yaml", []byte(text))
		if err == nil {
			t.Errorf("%s is read as %s", text, canonical(t, r))
		} else if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestSetKVCache(t *testing.T) {
	t.Parallel()
	r, err := recipe.Parse("f.yaml", []byte(kvStep))
	if err != nil {
		t.Fatal(err)
	}
	before := canonical(t, r)
	for _, bad := range [][2]string{
		{"kv_cache", "fp8"}, {"kv_cache.bits", "x"}, {"kv_cache.bits", "4"}, {"kv_cache.dynamic", "false"}, {"kv_cache.dynamic", "no?"},
		{"kv_cache.typ", "float"}, {"kv_cache.strategy", "group"}, {"kv_cache.group", "32"}, {"kv_cache.group", "y"},
	} {
		if err := r.Set(bad[0], bad[1]); !errors.Is(err, compress.ErrInvalid) || canonical(t, r) != before {
			t.Errorf("%s=%s: %v", bad[0], bad[1], err)
		}
	}
	for _, good := range [][2]string{{"kv_cache.type", "int"}, {"kv_cache.strategy", "token"}, {"kv_cache.bits", "8"}, {"kv_cache.dynamic", "true"}} {
		if err := r.Set(good[0], good[1]); err != nil {
			t.Errorf("%s=%s: %v", good[0], good[1], err)
		}
	}
	if err := r.Set("output.format", "dense"); err == nil {
		t.Error("dense takes it")
	}
	for _, order := range [][][2]string{
		{{"kv_cache.strategy", "group"}, {"kv_cache.group", "32"}},
		{{"kv_cache.group", "32"}, {"kv_cache.strategy", "group"}},
	} {
		both, err := recipe.Parse("f.yaml", []byte(kvStep))
		if err == nil {
			err = both.SetAll(order)
		}
		if err != nil || !strings.Contains(canonical(t, both), `"strategy":"group","group":32`) {
			t.Errorf("%v: %v", order, err)
		}
		bad := append([][2]string{{"bits", "99"}}, order...)
		if err := both.SetAll(bad); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "bits") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if got := canonical(t, r); !strings.Contains(got, `"kv_cache":{"bits":8,"type":"int","strategy":"token","dynamic":true}`) {
		t.Error(got)
	}
}
