// Package show turns a conversation's transcript into what a person reads: the
// steps between both sides with what was measured between which of them, a line a
// segment in tcpdump's manner, the ladder as text, a capture file, and JSON. What
// draws for a browser is in package status, from the same steps.
package show
