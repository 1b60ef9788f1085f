package recipe

import (
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/shardpress/shardpress/compress"
)

// KVCache says how an engine should keep the keys and values of attention. It needs no data and changes no weight: the scales are
// found as the engine runs, so that Dynamic is always true.
type KVCache struct {
	Bits     int64  `json:"bits"`
	Type     string `json:"type"`            // float or int
	Strategy string `json:"strategy"`        // what shares a scale: tensor, token, group
	Group    int64  `json:"group,omitempty"` // columns, with group
	Dynamic  bool   `json:"dynamic"`
}

const strategyToken = "token"

func defaultKVCache() *KVCache {
	return &KVCache{Bits: 8, Type: typeFloat, Strategy: compress.StrategyTensor, Dynamic: true}
}

func kvCacheKeys() []string { return []string{"bits", "type", "strategy", "group", "dynamic"} }

func (r *Recipe) validateKVCache() error {
	k := r.KVCache
	switch {
	case k == nil:
		return nil
	case k.Bits != 8:
		return r.errorf("kv_cache.bits", "kv_cache.bits is %d, and takes 8", k.Bits)
	case k.Type != typeFloat && k.Type != typeInt:
		return r.errorf("kv_cache.type", "kv_cache.type is %q, and takes %s or %s", k.Type, typeFloat, typeInt)
	case k.Strategy != compress.StrategyTensor && k.Strategy != strategyToken && k.Strategy != compress.StrategyGroup:
		return r.errorf("kv_cache.strategy", "kv_cache.strategy is %q, and takes %s, %s or %s", k.Strategy, compress.StrategyTensor, strategyToken, compress.StrategyGroup)
	case (k.Strategy == compress.StrategyGroup) != (k.Group > 0):
		return r.errorf("kv_cache.group", "kv_cache.group is %d, and takes a number of columns with strategy: %s only", k.Group, compress.StrategyGroup)
	case !k.Dynamic:
		return r.errorf("kv_cache.dynamic", "kv_cache.dynamic is false, and scales that are fixed beforehand have to be measured on data, which this does not do: write dynamic: true")
	}
	return nil
}

// kvCache reads the key of that name.
func (r *Recipe) kvCache(s source, n ast.Node) error {
	fields, err := s.fields(n, "kv_cache")
	if err != nil {
		return err
	}
	r.at["kv_cache"] = place(n)
	k := defaultKVCache()
	for _, f := range fields {
		r.at["kv_cache."+f.key] = place(f.value)
		switch f.key {
		case "bits":
			k.Bits, err = s.integer(f.value, "kv_cache.bits")
		case "type":
			k.Type, err = s.text(f.value, "kv_cache.type")
		case "strategy":
			k.Strategy, err = s.text(f.value, "kv_cache.strategy")
		case "group":
			k.Group, err = s.integer(f.value, "kv_cache.group")
		case "dynamic":
			var v any
			if v, err = s.scalar(f.value, "kv_cache.dynamic"); err == nil {
				var ok bool
				if k.Dynamic, ok = v.(bool); !ok {
					err = s.errorf(place(f.value), "kv_cache.dynamic takes true")
				}
			}
		default:
			err = s.errorf(f.at, "key %q of kv_cache is not known%s", f.key, didYouMean(f.key, kvCacheKeys()))
		}
		if err != nil {
			return err
		}
	}
	r.KVCache = k
	return nil
}

// setKVCache sets one member.
func (r *Recipe) setKVCache(name, value string) error {
	if r.KVCache == nil {
		r.KVCache = defaultKVCache()
	}
	k, err := r.KVCache, error(nil)
	switch name {
	case "type":
		k.Type = value
	case "strategy":
		if k.Strategy = value; value != compress.StrategyGroup {
			k.Group = 0 // without meaning
		}
	case "bits":
		k.Bits, err = strconv.ParseInt(value, 10, 64)
	case "group":
		k.Group, err = strconv.ParseInt(value, 10, 64)
	case "dynamic":
		k.Dynamic, err = strconv.ParseBool(value)
	default:
		return fmt.Errorf("kv_cache has no member %q%s", name, didYouMean(name, kvCacheKeys()))
	}
	if err != nil {
		return fmt.Errorf("kv_cache.%s takes another kind of value", name)
	}
	return nil
}
