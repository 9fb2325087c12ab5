// Package discovery runs Prometheus's own service discovery for the jobs that ask
// for it: the module's manager with its file, http and dns mechanisms. What it
// knows of a job are target groups, which package config makes targets of.
//
// A mechanism that fails leaves what it last found in force. A source that a reload
// keeps goes on as it was, whatever else changes.
package discovery
