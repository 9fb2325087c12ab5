package main

import (
	"github.com/alecthomas/kingpin/v2"

	"github.com/probed/probed/config"
)

// shardFlags adds the flags that divide targets among several hosts.
func shardFlags(cmd *kingpin.CmdClause, s *config.Shard) {
	cmd.Flag("shard", "Probe only part I, from 0, of N parts of the targets. A mesh divides itself.").
		PlaceHolder("I/N").SetValue(shardValue{s})
	cmd.Flag("shard.hash", "How a target finds its part: hashmod, as Prometheus's relabelling does, or rendezvous, which moves few when N changes.").
		Default(config.Hashmod.String()).SetValue(shardHashValue{s})
}

// shardValue is a kingpin.Value.
type shardValue struct{ *config.Shard }

// Set implements kingpin.Value.
func (v shardValue) Set(text string) error {
	s, err := config.ParseShard(text)
	if err == nil {
		v.Index, v.Count = s.Index, s.Count
	}
	return err
}

// shardHashValue is a kingpin.Value.
type shardHashValue struct{ of *config.Shard }

// Set implements kingpin.Value.
func (v shardHashValue) Set(text string) (err error) {
	v.of.Hash, err = config.ParseShardHash(text)
	return err
}

// String implements kingpin.Value.
func (v shardHashValue) String() string { return v.of.Hash.String() }
