package config

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxShards bounds into how many parts the targets are divided.
const maxShards = 10_000

// A Shard is one host's part of targets that several hosts divide among
// themselves. The zero Shard is all of them.
type Shard struct {
	Index, Count int // from 0; Count 0: there are no shards
	Hash         ShardHash
}

// ShardHash says how a target finds its shard.
type ShardHash uint8

// The ways to divide targets.
const (
	Hashmod    ShardHash = iota // as Prometheus's relabelling does; a change of Count moves most targets
	Rendezvous                  // a change of Count moves as few as can be
)

var shardHashNames = []string{"hashmod", "rendezvous"}

// String is the value as written on a command line.
func (h ShardHash) String() string { return shardHashNames[h] }

// ParseShard reads I/N, I from 0. The error says what is wrong with it.
func ParseShard(s string) (Shard, error) {
	index, count, ok := strings.Cut(s, "/")
	i, wrongIndex := parseNumber(index, 0, maxShards-1)
	n, wrongCount := parseNumber(count, 1, maxShards)
	switch {
	case !ok || wrongIndex != "" || wrongCount != "":
		return Shard{}, fmt.Errorf("%s is not a shard; write I/N, such as 0/3, with N up to %s", quote(s), commas(maxShards))
	case i >= n:
		return Shard{}, fmt.Errorf("there is no shard %d of %d: the first is 0/%d, the last %d/%d", i, n, n, n-1, n)
	}
	return Shard{Index: i, Count: n}, nil
}

// ParseShardHash reads the name of a way to divide targets.
func ParseShardHash(s string) (ShardHash, error) {
	for i, name := range shardHashNames {
		if name == s {
			return ShardHash(i), nil
		}
	}
	return 0, errors.New(quote(s) + " is not known; allowed: " + strings.Join(shardHashNames, ", "))
}

// String is the shard as ParseShard reads it; empty if there are none.
func (s Shard) String() string {
	if s.Count == 0 {
		return ""
	}
	return strconv.Itoa(s.Index) + "/" + strconv.Itoa(s.Count)
}

// Owns reports whether a target is in the shard.
func (s Shard) Owns(t *Target) bool { return s.Count <= 1 || s.of(t.Address) == s.Index }

// about returns how many of n targets are likely in the shard, and some more.
func (s Shard) about(n int) int {
	if s.Count <= 1 {
		return n
	}
	part := n / s.Count
	return part + 4*int(math.Sqrt(float64(part)))
}

// of returns which of Count shards has the target with an address.
func (s Shard) of(address string) int {
	h := hash(address)
	if s.Hash == Hashmod {
		return int(h % uint64(s.Count))
	}
	best, most := 0, score(0, h)
	for i := 1; i < s.Count; i++ {
		if x := score(uint64(i), h); x > most {
			best, most = i, x
		}
	}
	return best
}

// hash is that of Prometheus's action hashmod: the last 8 octets of the MD5, most
// significant first.
func hash(s string) uint64 {
	sum := md5.Sum([]byte(s))
	return binary.BigEndian.Uint64(sum[8:])
}

// score is how much a may have b: rendezvous hashing gives b to whoever has the
// highest (Thaler and Ravishankar, 1998).
func score(a, b uint64) uint64 { return mix(mix(a) ^ b) }

// mix spreads every bit over all: a step of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
