// Package docs holds the tests of the pages in docs/ and of the README: that what they
// point to is there. What they say is held by the tests of what it is said of. There
// is no code.
package docs
