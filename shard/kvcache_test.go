package shard

import (
	"errors"
	"strings"
	"testing"
)

func TestKVCacheScheme(t *testing.T) {
	t.Parallel()
	m := moe(t)
	quantized := storedIn(FormatPackQuantized, quantize(m, func(string) (Scheme, bool) { return int4(8), true }))
	rest := `"actorder":null,"block_structure":null,"observer":null,"observer_kwargs":{}}`
	for want, kv := range map[string]*KVCache{
		`"kv_cache_scheme":null,`: nil,
		`"kv_cache_scheme":{"num_bits":8,"type":"float","symmetric":true,"strategy":"tensor","group_size":null,"dynamic":true,` + rest: {Bits: 8, Type: "float", Strategy: StrategyTensor},
		`"kv_cache_scheme":{"num_bits":8,"type":"int","symmetric":true,"strategy":"group","group_size":32,"dynamic":true,` + rest:      {Bits: 8, Type: "int", Strategy: StrategyGroup, Group: 32},
	} {
		got, err := QuantizationConfigKV(m, quantized, kv)
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	for i := range quantized {
		quantized[i].Format, quantized[i].Description = FormatShardpress, []byte(`{"kind":"int"}`)
	}
	if _, err := QuantizationConfigKV(m, quantized, &KVCache{Bits: 8, Type: "float", Strategy: StrategyTensor}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("in our own container: %v", err)
	}
}
