// Command probed measures how TCP peers open and close connections, from the
// wire, and exports what it sees as Prometheus metrics.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
)

// defaultConfigFile is read if it is there and no other file was named.
const defaultConfigFile = "/etc/probed/probed.yml"

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute runs the command line and returns the exit code: 0, or 1 after one
// clear line, or one a configuration error, on stderr.
func execute(args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("probed", "Measures how TCP peers open and close connections, from the wire, for Prometheus.")
	app.UsageWriter(stdout).ErrorWriter(stderr)
	app.Version(version.Print("probed")).VersionFlag.Short('V')
	app.HelpFlag.Short('h')
	app.UsageTemplate(kingpin.LongHelpTemplate) // the default command has flags too

	runCmd := app.Command("run", "Run the daemon.").Default()
	var d daemon
	runCmd.Flag("config.file", "Configuration file. Without the flag, and without the default file, probed probes its own web listener.").
		Default(defaultConfigFile).IsSetByUser(&d.configNamed).StringVar(&d.configFile)
	d.web = kingpinflag.AddFlags(runCmd, ":10965")
	runCmd.Flag("web.telemetry-path", "Path of the metrics.").Default("/metrics").StringVar(&d.metricsPath)
	var logging promslog.Config
	promslogflag.AddFlags(app, &logging)

	checkCmd := app.Command("check-config", "Check configuration files and say what they would probe and how fast.")
	files := checkCmd.Arg("file", "Configuration file.").Required().Strings()

	versionCmd := app.Command("version", "Print the version.")

	command, err := app.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "probed: %v, try --help\n", err)
		return 1
	}
	switch command {
	case checkCmd.FullCommand():
		return checkConfig(*files, stdout, stderr)
	case versionCmd.FullCommand():
		fmt.Fprintln(stdout, version.Print("probed"))
		return 0
	}
	logging.Writer = stderr
	d.log = promslog.New(&logging)
	if err := d.run(); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "probed: %s\n", strings.TrimSpace(line))
		}
		return 1
	}
	return 0
}
