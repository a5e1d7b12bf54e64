{{/* Names that operators know, or others when the driver stands beside the one of that name. */}}
{{- define "azblob.kind" -}}
{{- if eq .Values.driver.name "blob.csi.azure.com" }}blob{{ else }}azblob{{ end -}}
{{- end -}}
{{- define "azblob.controller" -}}
{{- default (printf "csi-%s-controller" (include "azblob.kind" .)) .Values.controller.name -}}
{{- end -}}
{{- define "azblob.node" -}}
{{- default (printf "csi-%s-node" (include "azblob.kind" .)) .Values.node.name -}}
{{- end -}}
{{- define "azblob.keeper" -}}
{{- default (printf "csi-%s-keeper" (include "azblob.kind" .)) .Values.keeper.name -}}
{{- end -}}
{{- define "azblob.controllerAccount" -}}
{{- default (printf "csi-%s-controller-sa" (include "azblob.kind" .)) .Values.serviceAccount.controller -}}
{{- end -}}
{{- define "azblob.nodeAccount" -}}
{{- default (printf "csi-%s-node-sa" (include "azblob.kind" .)) .Values.serviceAccount.node -}}
{{- end -}}
{{- define "azblob.roles" -}}
{{- default (include "azblob.kind" .) .Values.rbac.name -}}
{{- end -}}

{{/* Ports: of the host's network for the nodes, so a second driver has others. */}}
{{- define "azblob.controllerPort" -}}
{{- $given := toString .Values.controller.metricsPort -}}
{{- if ne $given "" }}{{ $given }}{{ else if eq (include "azblob.kind" .) "blob" }}29634{{ else }}29644{{ end -}}
{{- end -}}
{{- define "azblob.nodePort" -}}
{{- $given := toString .Values.node.metricsPort -}}
{{- if ne $given "" }}{{ $given }}{{ else if eq (include "azblob.kind" .) "blob" }}29635{{ else }}29645{{ end -}}
{{- end -}}
{{- define "azblob.spool" -}}
{{- $own := eq (include "azblob.kind" .) "blob" | ternary "/var/lib/azblob-csi" (printf "/var/lib/azblob-csi-%s" .Values.driver.name) -}}
{{- default $own .Values.node.spoolPath -}}
{{- end -}}
{{- define "azblob.kubelet" -}}
{{- trimSuffix "/" .Values.linux.kubelet -}}
{{- end -}}
{{/* Below the kubelet's directory, which the node plugin has at the same path. */}}
{{- define "azblob.keeperSocket" -}}
{{ include "azblob.kubelet" . }}/plugins/{{ .Values.driver.name }}/keeper/keeper.sock
{{- end -}}

{{/* Which nodes the node plugin and the keeper are on. */}}
{{- define "azblob.nodePlace" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.node.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
affinity:
  {{- if .Values.node.affinity }}
  {{- toYaml .Values.node.affinity | nindent 2 }}
  {{- else }}
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: type
              operator: NotIn
              values: [virtual-kubelet]
  {{- end }}
{{- with .Values.node.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (dict "root" . "image" .Values.image.x) */}}
{{- define "azblob.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- $repository := .image.repository -}}
{{- if hasPrefix "/" $repository -}}
{{- $repository = trimPrefix "/" (printf "%s%s" (trimSuffix "/" .root.Values.image.baseRepo) $repository) -}}
{{- end -}}
{{ printf "%s:%s" $repository $tag }}
{{- end -}}

{{/* Our levels as they are; klog's numbers as what they show. */}}
{{- define "azblob.logLevel" -}}
{{- $level := toString . -}}
{{- if regexMatch "^[0-9]+$" $level -}}
{{- $number := int $level -}}
{{- if ge $number 8 }}trace{{ else if ge $number 6 }}debug{{ else }}info{{ end -}}
{{- else }}{{ $level }}{{ end -}}
{{- end -}}

{{- define "azblob.chartName" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- define "azblob.selector" -}}
app.kubernetes.io/name: {{ include "azblob.chartName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "azblob.labels" -}}
{{ include "azblob.selector" . }}
app.kubernetes.io/component: csi-driver
app.kubernetes.io/part-of: {{ include "azblob.chartName" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.customLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of pods: (dict "root" . "app" NAME), and "anonymous" for one that signs in nowhere. No version: what
     does not change the pod must not replace it. */}}
{{- define "azblob.podMetadata" -}}
labels:
  app: {{ .app }}
  {{- include "azblob.selector" .root | nindent 2 }}
  app.kubernetes.io/component: csi-driver
  {{- with .root.Values.customLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if and .root.Values.workloadIdentity.clientID (not .anonymous) }}
  azure.workload.identity/use: "true"
  {{- end }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What both roles find in their environment. */}}
{{- define "azblob.environment" -}}
# The path of a cloud config that the cluster keeps elsewhere.
- name: AZURE_CREDENTIAL_FILE
  valueFrom:
    configMapKeyRef:
      name: azure-cred-file
      key: path
      optional: true
{{- with .Values.driver.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.driver.httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.driver.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Whether csi-snapshotter runs: without its CRDs it ends at once. */}}
{{- define "azblob.snapshots" -}}
{{- $wanted := toString .Values.controller.snapshotter -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") (.Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1/VolumeSnapshotContent")) -}}true{{- end -}}
{{- end -}}

{{/* A container that has no right to anything. */}}
{{- define "azblob.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A sidecar: (dict "root" . "name" N "image" I "resources" R "args" LIST) */}}
{{- define "azblob.sidecar" -}}
- name: {{ .name }}
  image: {{ include "azblob.image" (dict "root" .root "image" .image) }}
  imagePullPolicy: {{ .image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --v=2
    - --leader-election
    - --leader-election-namespace={{ .root.Release.Namespace }}
    {{- range .args }}
    - {{ . }}
    {{- end }}
  volumeMounts:
    - name: socket-dir
      mountPath: /csi
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "azblob.confined" .root | nindent 4 }}
{{- end -}}

{{- define "azblob.controllerSubject" -}}
- kind: ServiceAccount
  name: {{ include "azblob.controllerAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
