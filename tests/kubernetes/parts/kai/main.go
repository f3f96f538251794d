// Command kai runs one part of KAI Scheduler, chosen by its first argument: `kai scheduler FLAG...`.
//
// The parts' own commands would do, but for two things. Some listen on port 8080 for metrics with
// no flag to change it, so two clusters on one machine would collide. And one program is linked once,
// where six would be linked six times. Flags are the parts' own; KUBECONFIG names the cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	binder "github.com/NVIDIA/KAI-scheduler/cmd/binder/app"
	podgroups "github.com/NVIDIA/KAI-scheduler/cmd/podgroupcontroller/app"
	podgrouper "github.com/NVIDIA/KAI-scheduler/cmd/podgrouper/app"
	queues "github.com/NVIDIA/KAI-scheduler/cmd/queuecontroller/app"
	scheduler "github.com/NVIDIA/KAI-scheduler/cmd/scheduler/app"
	binderplugins "github.com/NVIDIA/KAI-scheduler/pkg/binder/plugins"
	"github.com/NVIDIA/KAI-scheduler/pkg/binder/plugins/gpusharing"
	k8splugins "github.com/NVIDIA/KAI-scheduler/pkg/binder/plugins/k8s-plugins"
)

var parts = map[string]func() error{
	"binder":             runBinder,
	"podgroupcontroller": runPodGroupController,
	"podgrouper":         podgrouper.Run,
	"queuecontroller":    runQueueController,
	"scheduler":          scheduler.RunApp,
}

func main() {
	metricsserver.DefaultBindAddress = "0" // none, for the parts without a flag for it
	if len(os.Args) < 2 || parts[os.Args[1]] == nil {
		names := make([]string, 0, len(parts))
		for name := range parts {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "usage: kai PART [FLAG...]; parts: %v\n", names)
		os.Exit(2)
	}
	run := parts[os.Args[1]]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// logToStderr lets warnings and errors through; controllers say the rest for every object.
func logToStderr() {
	ctrl.SetLogger(zap.New(zap.Level(zapcore.WarnLevel)))
}

func runBinder() error {
	options := binder.InitOptions(pflag.CommandLine)
	pflag.Parse()
	logToStderr()
	app, err := binder.New(options, ctrl.GetConfigOrDie())
	if err != nil {
		return err
	}
	timeout := int64(options.VolumeBindingTimeoutSeconds)
	kubernetes, err := k8splugins.New(app.K8sInterface, app.InformerFactory, timeout)
	if err != nil {
		return err
	}
	plugins := binderplugins.New()
	plugins.RegisterPlugin(kubernetes)
	plugins.RegisterPlugin(gpusharing.New(app.Client, options.GpuCdiEnabled))
	app.RegisterPlugins(plugins)
	return app.Run(ctrl.SetupSignalHandler())
}

func runPodGroupController() error {
	options := podgroups.InitOptions(flag.CommandLine)
	return runController(func(ctx context.Context, config *rest.Config) error {
		return podgroups.Run(options, config, ctx)
	})
}

func runQueueController() error {
	options := queues.InitOptions(flag.CommandLine)
	return runController(func(ctx context.Context, config *rest.Config) error {
		return queues.Run(options, config, ctx)
	})
}

func runController(run func(context.Context, *rest.Config) error) error {
	flag.Parse()
	logToStderr()
	return run(ctrl.SetupSignalHandler(), ctrl.GetConfigOrDie())
}
