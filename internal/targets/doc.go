// Package targets turns a configuration into what the engine probes. It gives
// every target its metrics, resolves host names again and again, and on a
// reload carries over what stays.
package targets
