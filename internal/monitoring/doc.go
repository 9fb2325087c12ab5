// Package monitoring holds the tests of what deploy/ gives to Prometheus and Grafana:
// the rules and the dashboard, against a real Prometheus that scrapes a real probed.
// There is no code.
package monitoring
