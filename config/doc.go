// Package config turns YAML into a validated Config. It reports every error of
// a file at once, each with its place and the path of its key, and prints a
// Config back as YAML that parses to the same Config. It reads nothing from the
// host but the file: whether an interface, an address or a port is there is for
// others to find out.
package config
