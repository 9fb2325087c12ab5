package config

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// dscpNames are the per-hop behaviours with a name (RFC 2474, 2597, 3246, 5865,
// 8622), by code point.
var dscpNames = map[uint8]string{
	1: "le", 8: "cs1", 16: "cs2", 24: "cs3", 32: "cs4", 40: "cs5", 48: "cs6", 56: "cs7",
	10: "af11", 12: "af12", 14: "af13", 18: "af21", 20: "af22", 22: "af23",
	26: "af31", 28: "af32", 30: "af33", 34: "af41", 36: "af42", 38: "af43",
	44: "va", 46: "ef",
}

// dscp is a code point by number or name, kept as the octet that it is part of.
// It is what is printed of an octet without ECN bits.
var dscp = func() codec[uint8] {
	const allowed = "0 to 63, or a name such as ef, af41, cs1"
	c := scalar(allowed, func(s string) (uint8, string) {
		for point, name := range dscpNames {
			if strings.EqualFold(s, name) {
				return point << 2, ""
			}
		}
		n, wrong := parseNumber(s, 0, 63)
		switch {
		case strings.EqualFold(s, "cs0"), strings.EqualFold(s, "df"):
			return 0, ""
		case wrong == "":
			return uint8(n) << 2, ""
		case isNumber(s):
			return 0, wrong + "; allowed: " + allowed
		}
		return 0, quote(s) + " is not a DSCP; allowed: 0 to 63, " + strings.Join(sortedDSCPNames(), ", ")
	}, func(tos uint8) string {
		if tos&3 != 0 {
			return ""
		}
		if name := dscpNames[tos>>2]; name != "" {
			return name
		}
		return strconv.Itoa(int(tos >> 2))
	})
	return c
}()

func sortedDSCPNames() []string {
	names := []string{"df"}
	for _, name := range dscpNames {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// tos is the whole octet. It is what is printed of one with ECN bits.
var tos = func() codec[uint8] {
	c := number[uint8](0, 255)
	write := c.write
	c.write = func(tos uint8) *yaml.Node {
		if tos&3 == 0 {
			return nil
		}
		return write(tos)
	}
	return c
}()
