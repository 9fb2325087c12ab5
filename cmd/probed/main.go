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
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/probed/probed/config"
	"github.com/probed/probed/internal/show"
)

// defaultConfigFile is read if it is there and no other file was named.
const defaultConfigFile = "/etc/probed/probed.yml"

func main() { os.Exit(execute(os.Args[1:], shed, os.Stdout, os.Stderr)) }

// execute runs the command line and returns the exit code: 0, or 1 after one
// clear line, or one a configuration error, on stderr. Those of ping are its own. By shed
// check-config gives up what the daemon does, so that it reads what the daemon could.
func execute(args []string, shed func() error, stdout, stderr io.Writer) int {
	app := kingpin.New("probed", "Measures how TCP peers open and close connections, from the wire, for Prometheus.")
	app.UsageWriter(stdout).ErrorWriter(stderr)
	app.Version(version.Print("probed")).VersionFlag.Short('V')
	app.HelpFlag.Short('h')
	app.UsageTemplate(usage)

	runCmd := app.Command("run", "Run the daemon: what probed does without a command.").Default()
	var d daemon
	runCmd.Flag("config.file", "Configuration file. Without the flag, and without the default file, probed probes its own web listener.").
		Default(defaultConfigFile).IsSetByUser(&d.configNamed).StringVar(&d.configFile)
	d.web = &web.FlagConfig{ // without kingpinflag's promise of vsock
		WebListenAddresses: runCmd.Flag("web.listen-address", "Address of the web pages and the metrics, such as :10965 or [::1]:10965. May be repeated.").
			Default(":10965").Strings(),
		WebSystemdSocket: runCmd.Flag("web.systemd-socket", "Listen on the sockets that systemd passes instead.").Bool(),
		WebConfigFile: runCmd.Flag("web.config.file", "File that turns on TLS or authentication. See https://prometheus.io/docs/prometheus/latest/configuration/https/").
			Default("").String(),
	}
	runCmd.Flag("web.telemetry-path", "Path of the metrics.").Default("/metrics").StringVar(&d.metricsPath)
	runCmd.Flag("web.allowed-host", "Name that web clients may call probed by, without a port: whoever uses another in Host is turned away, but for IP addresses and localhost. May be repeated; without it any name will do.").
		PlaceHolder("NAME").StringsVar(&d.hosts)
	shardFlags(runCmd, &d.options.Shard)
	var logging promslog.Config
	promslogflag.AddFlags(app, &logging)

	checkCmd := app.Command("check-config", "Check configuration files and say what they would probe and how fast.")
	var checking config.Options
	shardFlags(checkCmd, &checking.Shard)
	files := checkCmd.Arg("file", "Configuration file.").Required().Strings()

	pinging := pinger{stdout: stdout, stderr: stderr}
	pingCmd := pinging.command(app)

	versionCmd := app.Command("version", "Print the version.")

	args = joinDash(args)
	command, err := app.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "probed: %s, try --help\n", show.SafeText(err.Error()))
		// What was asked for is known all the same, and ping's 1 says that somebody
		// did not answer.
		if c, _ := app.ParseContext(args); c != nil && c.SelectedCommand == pingCmd {
			return pingCannot
		}
		return 1
	}
	switch command {
	case checkCmd.FullCommand():
		_ = shed() // what could not be given up stays with the daemon too, which says so
		return checkConfig(*files, checking, stdout, stderr)
	case pingCmd.FullCommand():
		return pinging.run()
	case versionCmd.FullCommand():
		fmt.Fprintln(stdout, version.Print("probed"))
		return 0
	}
	writer := newLogWriter(stderr, func(lines uint64) {
		d.log.Warn("nobody has read the log for a while: lines of it are lost", "lines", lines)
	})
	logging.Writer = writer
	d.log = promslog.New(&logging)
	err = d.run()
	if writer.flush(); err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "probed: %s\n", strings.TrimSpace(line))
		}
		return 1
	}
	return 0
}
