// Package status is what probed shows a browser: the list of targets, live, each
// target's page, and the same as JSON and as captures. Whatever comes from outside
// (labels, host names, what peers sent) goes to a page through html/template's
// contextual escaping, and pages load and run nothing but what this package serves.
package status
